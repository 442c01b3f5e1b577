/* Draws the page of a trace: every number shown is the document's own. */

page.append(
  element("h1", { textContent: `Trace of ${data.header.model}` }),
  element("p", { className: "soft", textContent: `${data.header.basis}: ${data.header.origin}` }),
);

const body = element("tbody");
for (const [name, { value }] of Object.entries(data.summary.metrics)) {
  const number = element("data", { value: String(value), textContent: value === null ? "-" : String(+value.toPrecision(5)) });
  body.append(element("tr", {}, element("td", { className: "name", textContent: name.replaceAll("_", " ") }),
    element("td", { className: "number" }, number)));
}
heatmap(panel("Load", "Rows that each expert gets, over the mean of its layer; 1 is even."),
  data.load, "expert", "MoE layer");
const time = panel("Imbalance over time", "Hottest expert over the mean in each step: mean over layers, and the worst layer.");
figure(time, ["mean", "worst"].map((name) => ({
  type: "scatter", mode: "lines", name, x: data.imbalance.step, y: data.imbalance[name],
})), { xaxis: { title: { text: "step" } }, yaxis: { title: { text: "max / mean" } } });
for (const { layer, rows } of data.affinity) {
  heatmap(panel(`Affinity from MoE layer ${layer} to ${layer + 1}`,
    "Where tokens of one heaviest expert (row) go in the next layer (column); each row adds up to 1."),
  rows, `expert of layer ${layer + 1}`, `expert of layer ${layer}`);
}
for (const { layer, rows } of data.coactivation) {
  heatmap(panel(`Co-activation in MoE layer ${layer}`,
    "Share of the tokens of one expert (row) that another one (column) gets too; the diagonal is left out."),
  rows, "expert", "expert");
}
const position = panel("Drops by position", "Share of choices without an expert, by relative position in the request: "
  + "as recorded, and as capacity factor 1 with places in order would drop them.");
figure(position, [["recorded", "drop_by_position"], ["capacity factor 1", "capacity_1_drop_by_position"]].map(
  ([name, key]) => ({ type: "bar", name, y: data.summary.breakdown[key],
    x: data.summary.breakdown[key].map((_, bin, all) => `${Math.round(100 * (bin + 1) / all.length)} %`) })),
{ barmode: "group", xaxis: { title: { text: "up to this part of the request" } }, yaxis: { title: { text: "dropped" } } });
if (data.domains) {
  heatmap(panel("Domains", "Jensen-Shannon bits between the domains' expert shares, mean over layers."),
    data.domains, "", "", { x: data.header.domains, y: data.header.domains });
}
panel("Numbers", "Means are over layers.", element("table", {}, body));
