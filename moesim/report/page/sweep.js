/* Draws the page of a sweep: points as lines over their axes, a heatmap of two axes, the front, and a table of all. */

const digits = (value) => (typeof value === "number" ? String(+value.toPrecision(6)) : value === null ? "" : String(value));

/* Bytes and seconds in a unit that suits the largest: [factor, unit]; other numbers as they are. */
const UNITS = [[/(^|_)bytes$/, [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]]], [/_s$/, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]]];
function unitOf(name) {
  const steps = metrics.includes(name) && !/_per_s$/.test(name) && (UNITS.find(([ending]) => ending.test(name)) || [])[1];
  if (!steps) return [1, ""];
  const most = Math.max(...able.map((row) => Math.abs(row[name]) || 0));
  return steps.find(([size]) => most >= size) || steps[steps.length - 1];
}
const titled = (name) => (unitOf(name)[1] ? `${name} (${unitOf(name)[1]})` : name);
const column = (listed, name) => listed.map((row) => (typeof row[name] === "number" ? row[name] / unitOf(name)[0] : row[name]));
const brief = (name, value) => (typeof value === "number" ? `${+(value / unitOf(name)[0]).toPrecision(4)} ${unitOf(name)[1]}`.trim() : digits(value));

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

/* What stands at the ends of a column: of numbers the least and the most, of words each at its place. On a phone columns
   are rows, as their names and ends have no room beside each other. */
const phone = innerWidth < 600;
function ends(name, known) {
  const told = (value, at, last) => {
    const text = { text: brief(name, value), showarrow: false, font: { size: 10 }, bgcolor: css("--panel"), opacity: 0.9 };
    return phone ? { ...text, x: at, y: name, xanchor: last ? "right" : at ? "center" : "left", yanchor: "top", yshift: -5 }
      : { ...text, x: name, y: at + (last ? 0.02 : -0.02), yanchor: last ? "bottom" : "top" };
  };
  if (known.length === 1) return [told(known[0], 0.5, !phone)];
  if (typeof known[0] === "number") return [told(known[0], 0, false), told(known[known.length - 1], 1, true)];
  const words = phone ? [known[0], known[known.length - 1]] : known;
  return words.map((value, number) => told(value, number / (words.length - 1), phone ? number === words.length - 1 : number > 0));
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
  const traces = rows.map((row, number) => ({ row, number })).filter(({ row }) => row.code === 0).map(({ row, number }) => {
    const at = names.map((name) => place(row, name));
    return {
      type: "scatter", mode: "lines+markers", showlegend: false, x: phone ? at : names, y: phone ? names : at,
      text: names.map((name) => `${name} ${digits(row[name])}`), hoverinfo: "text", opacity: best.size && !best.has(number) ? 0.3 : 0.9,
      line: { color: best.has(number) ? css("--hot") : best.size ? css("--soft") : undefined, width: best.has(number) ? 3 : 1 },
    };
  });
  const ticks = { showticklabels: false, range: [-0.12, 1.12] };
  const heads = phone ? names.map((name) => ({ x: 0, y: name, text: `<b>${name}</b>`, showarrow: false, xanchor: "left", yanchor: "bottom", yshift: 5, font: { size: 11 }, bgcolor: css("--panel"), opacity: 0.9 })) : [];
  drawing(parent, traces, {
    height: phone ? 60 + 62 * names.length : 420, annotations: [...heads, ...names.flatMap((name) => ends(name, levels[name]))],
    ...(phone ? { xaxis: { ...ticks, range: [-0.04, 1.04] }, yaxis: { showticklabels: false, autorange: "reversed", range: [names.length - 0.5, -0.6] }, margin: { l: 8, r: 8, t: 24, b: 24 } }
      : { xaxis: { automargin: true }, yaxis: { ...ticks, title: { text: "least to most" } } }),
  });
}

page.append(element("h1", { textContent: found.provenance.scenario }), element("p", { className: "soft", textContent: data.title }));
if (found.warnings.length) {
  panel("Warnings", "", element("ul", {}, ...found.warnings.map((text) => element("li", { textContent: text })))).classList.add("warnings");
}
if (able.length && keys.length) {
  const parent = panel("Points", `A line is a point; each axis runs from its least to its most.${found.front ? " Thick: no other point beats it." : ""}`);
  lines(parent);
  parent.append(table("point", "as a table", [...keys, "seed", ...metrics], able));
}
if (keys.length === 2 && able.length > 1) {
  const [x, y] = keys.map(level);
  const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
  const cells = y.map((down) => x.map((across) => mean(able.filter((row) => row[keys[0]] === across && row[keys[1]] === down).map((row) => row[chosen] / unitOf(chosen)[0]))));
  const parent = panel("Two axes", `${chosen}, the mean over seeds; a point without a number is empty.`);
  drawing(parent, [{ type: "heatmap", z: cells, x: x.map(String), y: y.map(String), colorscale: [[0, css("--low")], [1, css("--hot")]], colorbar: { title: { text: titled(chosen), side: "right" } } }],
    { xaxis: { type: "category", title: { text: keys[0] } }, yaxis: { type: "category", automargin: true, title: { text: keys[1] } } });
  parent.append(table("cell", "as a table", [...keys, chosen], able));
}
if (found.front) {
  const kept = found.front.map((number) => rows[number]);
  const parent = panel("Front", `Points that no other beats (${ways}): hypervolume ${digits(found.metrics.hypervolume.value)}, R2 ${digits(found.metrics.r2.value)}.`);
  if (goals.length > 1) {
    const dots = (listed, name, color) => ({ type: "scatter", mode: "markers", name, x: column(listed, goals[0]), y: column(listed, goals[1]), marker: { color, size: 10 } });
    drawing(parent, [dots(able, "all points", css("--soft")), dots(kept, "front", css("--hot"))], { xaxis: { title: { text: titled(goals[0]) } }, yaxis: { title: { text: titled(goals[1]) } } });
  }
  parent.append(table("front", "as a table", [...keys, "seed", ...goals], kept));
}
{
  const parent = panel("What failed", "");
  const failed = rows.filter((row) => row.code !== 0);
  if (failed.length) parent.append(table("failed", `${failed.length} points have no numbers`, [...keys, "seed", "code", "reason"], failed));
  else parent.append(element("p", { textContent: "Nothing: every point has its numbers." }));
}
panel("Play it again", "Save the scenario below under its name; the same version of moesim gives the same numbers.", ...playAgain(data.command, data.scenarios));
