/* Draws the page of a placement run: every number shown is the document's own. */

const { document: found, pictures } = data;
const told = found.provenance;
const digits = (value, count = 5) => (value === null || value === undefined ? "-" : String(+value.toPrecision(count)));
const percent = (value) => (value === null ? "-" : `${(value * 100).toFixed(2)} %`);
const seconds = (value) => (value >= 1 ? `${digits(value, 4)} s` : value >= 1e-3 ? `${digits(value * 1e3, 4)} ms` : `${digits(value * 1e6, 4)} µs`);
const judged = Object.keys(told.judged_windows);
const timed = Object.keys(found.strategies[0].step_time_s);

function summary() {
  const heads = ["strategy", "train", "bound", "gap", ...judged, ...timed.map((name) => `step, ${name}`), "moves", "search"];
  const head = element("tr", {}, ...heads.map((text, index) => element("th", { textContent: text, className: index ? "number" : "name" })));
  const rows = found.strategies.map((row) => {
    const cells = [
      ["objective", row.objective, digits(row.objective)], ["bound", row.bound, row.bound === null ? "none" : digits(row.bound)],
      ["gap", row.gap, percent(row.gap)], ...judged.map((name) => [name, row.judged[name], digits(row.judged[name])]),
      ...timed.map((name) => [`step_time_s, ${name}`, row.step_time_s[name], seconds(row.step_time_s[name])]),
      ["moves", row.moves, digits(row.moves)], ["seconds", row.seconds, seconds(row.seconds)],
    ];
    const numbers = cells.map(([name, value, text]) => element("td", { className: "number" }, shown(row.strategy, name, value, text)));
    return element("tr", { className: row.strategy === told.best ? "total" : "" }, element("td", { textContent: row.strategy }), ...numbers);
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  panel("Strategies", `${told.objective}, lower is better: on the windows they were planned on, on windows they never saw, and as `
    + "a step that the simulator played. No placement is below the bound.", element("div", { className: "scroll" }, table));
}

function bars() {
  const names = found.strategies.map((row) => row.strategy);
  const series = [["train", (row) => row.objective], ...judged.map((name) => [name, (row) => row.judged[name]])];
  const parent = panel("Does a plan carry over?", `${told.objective} of each plan on the windows it was made for, and on others.`);
  figure(parent, series.map(([name, value]) => ({ type: "bar", name, x: names, y: found.strategies.map(value) })),
    { barmode: "group", yaxis: { title: { text: told.objective } } });
}

/* Two pictures on one colour scale. */
function pair(title, note, before, after, xTitle, yTitle, hover) {
  const most = Math.max(...before.flat(), ...after.flat());
  const least = Math.min(...before.flat(), ...after.flat());
  const parent = panel(title, note);
  const halves = element("div", { className: "halves" });
  parent.append(halves);
  for (const [name, rows] of [[pictures.before, before], [pictures.after, after]]) {
    const half = element("div", {}, element("p", { className: "soft", textContent: name }));
    halves.append(half);
    heatmap(half, rows, xTitle, yTitle, { zmin: least, zmax: most, hovertemplate: hover, name: "" });
  }
}

page.append(
  element("h1", { textContent: `Placement of ${told.model} on ${told.gpus} GPUs of ${told.topology}` }),
  element("p", { className: "soft", textContent: `${told.trace}, ${told.routing}; ${told.windows} windows of ${told.window} tokens planned on` }),
  element("p", { textContent: found.provenance.verdict }),
  element("p", { textContent: found.ceiling.text }),
);
if (found.warnings.length) {
  const list = element("ul", {}, ...found.warnings.map((text) => element("li", { textContent: text })));
  panel("Warnings", "", list).classList.add("warnings");
}
summary();
bars();
pair("Load", `Choices that each GPU computes over the mean of its layer, on ${pictures.windows} windows; 1 is even.`,
  pictures.load.before, pictures.load.after, "GPU", "MoE layer", "layer %{y}, GPU %{x}: %{z}");
if (pictures.traffic) {
  const { unit, before, after } = pictures.traffic;
  pair("Traffic", `Bytes of tokens from ${unit} (row) to ${unit} (column) in the simulated step.`,
    before, after, `to ${unit}`, `from ${unit}`, "%{y} to %{x}: %{z:.4s}B");
}
heatmap(panel("Replicas", `Slots that hold each expert under ${pictures.after}.`), pictures.replicas, "expert", "MoE layer",
  { hovertemplate: "layer %{y}, expert %{x}: %{z}", name: "" });
if (pictures.moves) {
  heatmap(panel("Moves", `Experts that arrive on each GPU on the way from ${pictures.before} to ${pictures.after}.`),
    pictures.moves, "GPU", "MoE layer", { hovertemplate: "layer %{y}, GPU %{x}: %{z}", name: "" });
  const links = [...pictures.links].reverse();
  figure(panel("Links", "Links that carry most of what moves, in bytes."),
    [{ type: "bar", orientation: "h", x: links.map((link) => link.bytes), y: links.map((link) => link.name) }],
    { yaxis: { automargin: true } });
}
