"use strict";
/* Draws the page of a sweep: points as lines over their axes, a heatmap of two axes, the front, and a table of all. */

const digits = (value) => (typeof value === "number" ? String(+value.toPrecision(6)) : value === null ? "" : String(value));
const { document: found, keys, metrics, goals, ways } = data;
const rows = found.points;
const able = rows.filter((row) => row.code === 0);
const chosen = metrics[0];

function table(kind, title, heads, listed) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { textContent: text, scope: "col" })));
  const body = listed.map((row, number) => element("tr", {}, ...heads.map((name) => {
    const cell = element("td", { className: typeof row[name] === "number" ? "number" : "name" });
    cell.append(metrics.includes(name) ? shown(kind, `${name} ${number}`, row[name], digits(row[name])) : digits(row[name]));
    return cell;
  })));
  const inner = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("details", {}, element("summary", { textContent: title }), element("div", { className: "scroll" }, inner));
}

const level = (name) => [...new Set(able.map((row) => row[name]))].sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : 1));

/* What stands at a column: of numbers the least below and the most above, of words each at its place. */
function ends(name, known) {
  const told = (value, y, yanchor) => ({
    x: name, y, yanchor, text: typeof value === "number" ? String(+value.toPrecision(4)) : digits(value), showarrow: false,
    font: { size: 10 }, bgcolor: css("--panel"), opacity: 0.9,
  });
  if (known.length === 1) return [told(known[0], 0.5, "bottom")];
  if (typeof known[0] === "number") return [told(known[0], -0.02, "top"), told(known[known.length - 1], 1.02, "bottom")];
  const words = innerWidth < 600 ? [] : known;
  return words.map((value, number) => told(value, number / (known.length - 1) + (number ? 0.02 : -0.02), number ? "bottom" : "top"));
}

/* Each point is a line over the axes and metrics, every one from its least to its most. */
function lines(parent) {
  const names = [...keys, ...metrics];
  const levels = Object.fromEntries(names.map((name) => [name, level(name)]));
  const place = (row, name) => {
    const known = levels[name];
    if (known.length === 1) return 0.5;
    if (typeof row[name] !== "number") return known.indexOf(row[name]) / (known.length - 1);
    return (row[name] - known[0]) / (known[known.length - 1] - known[0]);
  };
  const best = new Set(found.front || []);
  const traces = rows.map((row, number) => ({ row, number })).filter(({ row }) => row.code === 0).map(({ row, number }) => ({
    type: "scatter", mode: "lines+markers", showlegend: false, x: names, y: names.map((name) => place(row, name)),
    text: names.map((name) => `${name} ${digits(row[name])}`), hoverinfo: "text", opacity: best.size && !best.has(number) ? 0.3 : 0.9,
    line: { color: best.has(number) ? css("--hot") : best.size ? css("--soft") : undefined, width: best.has(number) ? 3 : 1 },
  }));
  figure(parent, traces, {
    height: 420, xaxis: { automargin: true }, yaxis: { showticklabels: false, range: [-0.12, 1.12], title: { text: "least to most" } },
    annotations: names.flatMap((name) => ends(name, levels[name])),
  });
}

page.append(element("h1", { textContent: found.provenance.scenario }), element("p", { className: "soft", textContent: data.title }));
if (found.warnings.length) {
  panel("Warnings", "", element("ul", {}, ...found.warnings.map((text) => element("li", { textContent: text })))).classList.add("warnings");
}
if (able.length && keys.length) {
  const parent = panel("Points", `A line is a point; each column runs from its least to its most.${found.front ? " Thick: no other point beats it." : ""}`);
  lines(parent);
  parent.append(table("point", "as a table", [...keys, "seed", ...metrics], able));
}
if (keys.length === 2 && able.length > 1) {
  const [x, y] = keys.map(level);
  const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
  const cells = y.map((down) => x.map((across) => mean(able.filter((row) => row[keys[0]] === across && row[keys[1]] === down).map((row) => row[chosen]))));
  const parent = panel("Two axes", `${chosen}, the mean over seeds; a point without a number is empty.`);
  figure(parent, [{ type: "heatmap", z: cells, x: x.map(String), y: y.map(String), colorscale: [[0, css("--low")], [1, css("--hot")]], colorbar: { title: { text: chosen, side: "right" } } }],
    { xaxis: { type: "category", title: { text: keys[0] } }, yaxis: { type: "category", automargin: true, title: { text: keys[1] } } });
  parent.append(table("cell", "as a table", [...keys, chosen], able));
}
if (found.front) {
  const kept = found.front.map((number) => rows[number]);
  const parent = panel("Front", `Points that no other beats (${ways}): hypervolume ${digits(found.metrics.hypervolume.value)}, R2 ${digits(found.metrics.r2.value)}.`);
  if (goals.length > 1) {
    const dots = (listed, name, color) => ({ type: "scatter", mode: "markers", name, x: listed.map((row) => row[goals[0]]), y: listed.map((row) => row[goals[1]]), marker: { color, size: 10 } });
    figure(parent, [dots(able, "all points", css("--soft")), dots(kept, "front", css("--hot"))], { xaxis: { title: { text: goals[0] } }, yaxis: { title: { text: goals[1] } } });
  }
  parent.append(table("front", "as a table", [...keys, "seed", ...goals], kept));
}
{
  const parent = panel("What failed", "");
  const failed = rows.filter((row) => row.code !== 0);
  if (failed.length) parent.append(table("failed", `${failed.length} points have no numbers`, [...keys, "seed", "code", "reason"], failed));
  else parent.append(element("p", { textContent: "Nothing: every point has its numbers." }));
}
