/* Draws what a check of a profile found: residuals of each kernel, measured over predicted. */

page.append(
  element("h1", { textContent: `Check of ${data.profile}` }),
  element("p", { className: "soft", textContent: data.way ? `held out by ${data.way}` : "the profile as it is" }),
);

const body = element("tbody");
for (const [name, { value }] of Object.entries(data.metrics)) {
  const number = element("data", { value: String(value), textContent: `${(100 * value).toFixed(1)} %` });
  body.append(element("tr", {}, element("td", { className: "name", textContent: name.replaceAll("_", " ") }),
    element("td", { className: "number" }, number)));
}
panel("Errors by operator", "Absolute error of rows that obey physics, and of all rows.", element("table", {}, body));
for (const one of data.operators) {
  const drawn = panel(one.name, `${one.rows} rows, ${one.points.seconds.length} drawn; above 0 the kernel was slower than predicted.`);
  const groups = [...new Set(one.points.group)];
  figure(drawn, groups.map((group) => {
    const of = (values) => values.filter((_, row) => one.points.group[row] === group);
    return { type: "scatter", mode: "markers", name: group || "all", marker: { size: 4, opacity: 0.5 },
      x: of(one.points.seconds), y: of(one.points.residual) };
  }), { xaxis: { type: "log", title: { text: "predicted seconds" } }, yaxis: { title: { text: "ln(measured / predicted)" } } });
  drawn.append(element("ul", {}, ...one.worst.map((text) => element("li", { textContent: text }))));
}
