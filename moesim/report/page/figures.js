"use strict";
/* What all pages share: colours that are told apart, and the numbers of a picture as a table. */

/* Told apart by colour-blind eyes (Okabe, Ito 2008), in both themes. */
const OKABE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"];
const MOST_ROWS = 4000; // of a table: beyond it a browser is slow, and the document at the end has all

function build(tag, attributes, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

/* Black or white, whichever is read better on a colour (relative luminance, WCAG 2). */
function inkOn(hex) {
  const [red, green, blue] = hex.match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16) / 255).map((one) => (one <= 0.04 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#10151c" : "#ffffff";
}

/* A trace as rows: series, along x, along y, from where a bar begins, what is told of it. */
function* rowsOf(trace) {
  const told = [trace.hovertext, trace.text].find(Array.isArray) || [];
  if (trace.type === "heatmap") {
    for (const [down, row] of trace.z.entries()) {
      for (const [across, value] of row.entries()) yield ["", trace.x ? trace.x[across] : across, trace.y ? trace.y[down] : down, value, (told[down] || [])[across]];
    }
    return;
  }
  for (const [index, x] of trace.x.entries()) {
    if (x !== null) yield [trace.name || "", x, trace.y[index], trace.base ? trace.base[index] : "", told[index]];
  }
}

function asText(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "number" ? String(+value.toPrecision(6)) : String(value).replace(/<br>/g, ", ");
}

/* The rows of some traces below a picture, made when somebody opens them. */
function asTable(traces, layout) {
  const title = (axis, otherwise) => (axis && axis.title && axis.title.text) || otherwise;
  const heat = traces.some(({ type }) => type === "heatmap");
  const details = build("details", { className: "data" }, build("summary", { textContent: "as a table" }));
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const seen = traces.filter(({ hoverinfo }) => hoverinfo !== "skip");
    const all = seen.flatMap((trace) => [...rowsOf(trace)]);
    const heads = ["series", title(layout.xaxis, "x"), title(layout.yaxis, "y"), heat ? "value" : "from", "told"];
    const kept = heads.map((_, column) => column).filter((column) => all.some((row) => asText(row[column]) !== ""));
    const cells = (row) => kept.map((column) => build("td", { className: typeof row[column] === "number" ? "number" : "name", textContent: asText(row[column]) }));
    const head = build("tr", {}, ...kept.map((column) => build("th", { textContent: heads[column], scope: "col" })));
    const body = all.slice(0, MOST_ROWS).map((row) => build("tr", {}, ...cells(row)));
    const inner = build("table", {}, build("thead", {}, head), build("tbody", {}, ...body));
    const left = all.length > MOST_ROWS ? [build("p", { className: "note", textContent: `${all.length - MOST_ROWS} more rows are not shown.` })] : [];
    details.append(build("div", { className: "scroll tall" }, inner), ...left);
  });
  return details;
}

/* Paper is narrower than a screen: pictures are drawn smaller while it is printed, never cut. */
addEventListener("beforeprint", () => document.querySelectorAll(".figure .main-svg").forEach((svg) => svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`)));
addEventListener("afterprint", () => document.querySelectorAll(".figure .main-svg").forEach((svg) => svg.removeAttribute("viewBox")));

/* The scenarios that were played, by name, and the command that plays them again. */
function playAgain(command, scenarios) {
  const files = Object.entries(scenarios).map(([name, text]) => build("details", {}, build("summary", { textContent: name }), build("pre", { id: name.replace(".yaml", ""), textContent: text })));
  return [build("pre", { id: "command", textContent: command }), ...files];
}
