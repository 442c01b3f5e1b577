/* What the pages of traces and placements are built of; they draw from the JSON that stands in the page. */

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const element = build;

/* A number of the document, which a test finds again in the page. */
function shown(kind, name, value, text) {
  const node = element("data", { value: String(value), textContent: text });
  node.dataset.kind = kind;
  node.dataset.name = name;
  return node;
}

function panel(title, note, ...children) {
  const heading = element("h2", { textContent: title });
  const text = element("p", { className: "note", textContent: note });
  const node = element("section", { className: "panel", ariaLabel: title }, heading, text, ...children);
  page.append(node);
  return node;
}

function drawing(parent, traces, layout) {
  const kinds = [...new Set(traces.map(({ type }) => type || "scatter"))].join(" and ");
  const axes = [layout.xaxis, layout.yaxis].map((axis) => axis && axis.title && axis.title.text).filter(Boolean);
  const node = element("div", {
    className: "figure", id: `figure-${document.querySelectorAll(".figure").length}`, role: "img",
    ariaLabel: `${kinds} chart${axes.length ? ` over ${axes.join(" and ")}` : ""}`,
  });
  parent.append(node);
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line") };
  const above = innerWidth < 600 && traces.length > 1 && traces.every(({ showlegend }) => showlegend !== false);
  Plotly.newPlot(node, traces, {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { color: css("--ink") }, colorway: OKABE,
    margin: { l: 60, r: 20, t: 10, b: 50 }, ...layout, height: (layout.height || 380) + (above ? 20 + 20 * Math.ceil(traces.length / 2) : 0),
    ...(above ? { legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" } } : {}),
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  }, { displayModeBar: false, responsive: true });
}

/* A picture, and its numbers below it. */
function figure(parent, traces, layout) {
  drawing(parent, traces, layout);
  parent.append(asTable(traces, layout));
}

function heatmap(parent, rows, xTitle, yTitle, extra = {}) {
  const scale = [[0, css("--low")], [1, css("--hot")]];
  figure(parent, [{ type: "heatmap", z: rows, colorscale: scale, ...extra }],
    { xaxis: { title: { text: xTitle } }, yaxis: { title: { text: yTitle }, autorange: "reversed" } });
}
