/* Draws the page from the JSON documents that stand in it: every number shown is a <data> element whose value is the
   document's own. */

const RUNGS = {
  ideal_compute_s: ["Balanced compute", "--ideal"],
  imbalance_s: ["Imbalance", "--imbalance"],
  exposed_comm_s: ["Exposed communication", "--comm"],
  interference_s: ["Interference", "--interference"],
  contention_s: ["Contention", "--contention"],
  fault_s: ["Faults", "--fault"],
  bubble_s: ["Pipeline bubble", "--bubble"],
  other_s: ["Host and the rest", "--other"],
  schedule_effect_s: ["Schedule effect", "--schedule"],
};
const CARDS = [
  ["step_time_s", "step time"],
  ["output_throughput", "output throughput"],
  ["total_token_throughput", "token throughput"],
  ["tokens_per_s_per_gpu", "per GPU"],
  ["tflops_per_gpu", "model FLOP/s per GPU"],
  ["mfu", "of peak FLOP/s (MFU)"],
  ["mbu", "of memory's rate (MBU)"],
  ["exposed_comm_fraction", "exposed comm."],
  ["rank_max_over_mean", "hottest GPU / mean rows"],
  ["expert_max_over_mean", "hottest expert / mean"],
  ["hottest_link_utilisation", "hottest link"],
  ["peak_memory_bytes", "peak memory of a GPU"],
  ["predicted_over_published", "predicted / published"],
];
/* Okabe and Ito's; what goes together is one hue, lighter or darker. */
const COLOURS = {
  attention: "#0072b2", core: "#004b75", router: "#56b4e9", dispatch: "#e69f00", combine: "#f3cf80", experts: "#009e73",
  shared: "#8fd4bd", mlp: "#b8ab2e", head: "#6b5b4b", host: "#8c8782", optimizer: "#cc79a7", all_gather: "#d55e00",
  all_reduce: "#a84a00", reduce_scatter: "#f2a678",
};
const SPARE = ["#882255", "#44aa99", "#ddcc77", "#aa4499", "#332288", "#999933"]; // Tol's, for classes without a name here

const runs = [...document.querySelectorAll("script.result")].map((node, index) => ({
  result: JSON.parse(node.textContent),
  pictures: JSON.parse(document.querySelectorAll("script.pictures")[index].textContent),
}));
let shown = 0;

/* The name of a run; runs of one name are told apart by their scenario and seed. */
function label(run) {
  const { name } = run.pictures;
  const { scenario_hash: hash = "", seed } = run.result.provenance;
  const alone = runs.filter(({ pictures }) => pictures.name === name).length === 1;
  return alone ? name : `${name} (${String(hash).slice(0, 6)}, seed ${seed})`;
}

// ---- text ----------------------------------------------------------------------------------------------------------

function digits(value, count = 4) {
  const whole = Number.isInteger(value) && Math.abs(value) < 1e4;
  return value.toLocaleString("en-US", { maximumSignificantDigits: count, minimumSignificantDigits: whole ? 1 : count });
}

function scaled(value, steps) {
  const [scale, unit] = steps.find(([size]) => Math.abs(value) >= size) || steps[steps.length - 1];
  return `${digits(value / scale)} ${unit}`;
}

const BYTES = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]];
const seconds = (value) =>
  value === 0 ? "0 s" : scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]);
const bytes = (value) =>
  value === 0 ? "0 B" : scaled(value, BYTES);
/* Ticks of an axis of bytes: up to five round steps, in the words of `bytes`. */
function byteTicks(most) {
  const power = 10 ** Math.floor(Math.log10(most / 4)), step = [1, 2, 5, 10].find((one) => one * power >= most / 4) * power;
  const tickvals = [0, 1, 2, 3, 4].map((one) => one * step).filter((one) => one <= most);
  const [size, unit] = BYTES.find(([one]) => most >= one) || [1, "B"];
  return { tickvals, ticktext: tickvals.map((one) => `${+(one / size).toPrecision(3)} ${unit}`) };
}
const percent = (value) => `${(value * 100).toFixed(1)} %`;

function formatted(name, value, unit) {
  if (value === null) return "not played";
  if (unit === "s") return seconds(value);
  if (unit === "B") return bytes(value);
  if (unit !== "1") return `${digits(value)} ${unit}`;
  return /fraction|utilisation|mfu|mbu|experts_reached/.test(name) ? percent(value) : digits(value);
}

// ---- elements ------------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function number(kind, name, value, unit, text = formatted(name, value, unit)) {
  return make("data", { "data-kind": kind, "data-name": name, value: String(value) }, text);
}

function panel(title, note, ...children) {
  return make("section", { class: "panel", "aria-label": title }, make("h2", {}, title), make("p", { class: "note" }, note), ...children);
}

function table(heads, rows) {
  const cell = (tag, content, index) => make(tag, { class: index && heads[index][1] ? "number" : "name", ...(tag === "th" ? { scope: "col" } : {}) }, content);
  const head = make("tr", {}, ...heads.map(([text], index) => cell("th", text, index)));
  const body = rows.map((row) => make("tr", row.class ? { class: row.class } : {}, ...row.cells.map((c, i) => cell("td", c, i))));
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function bar(share) {
  const width = Math.max(0, Math.min(1, share)) * 100;
  return make("div", { class: "bar", role: "img", "aria-label": `${width.toFixed(0)} %` }, make("i", { class: share > 0.9 ? "full" : "", style: `width:${width}%` }));
}

function colour(variable) {
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
}

function layout(extra) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 10, t: 10, b: 40 },
    font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12.5 },
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    ...extra,
    xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
  };
}

/* What a figure shows, for those who hear the page: what kind it is, of what, and over what. */
function spoken(id, traces, extra) {
  const kinds = [...new Set(traces.map(({ type }) => type || "scatter"))].join(" and ");
  const names = [...new Set(traces.map(({ name }) => name).filter(Boolean))].slice(0, 12);
  const axis = (of) => (of && of.title ? of.title.text || of.title : "");
  const axes = [axis(extra.xaxis), axis(extra.yaxis)].filter(Boolean);
  return [`${id.replace(/[-_]/g, " ")}: ${kinds} chart`, names.length ? `of ${names.join(", ")}` : "", axes.length ? `over ${axes.join(" and ")}` : ""].filter(Boolean).join(" ");
}

function drawing(id, height, traces, extra) {
  const node = make("div", { class: "figure", id, style: `height:${height}px`, role: "img", "aria-label": spoken(id, traces, extra) });
  const draw = () => Plotly.newPlot(node, traces, layout(extra), { displayModeBar: false, responsive: true });
  requestAnimationFrame(draw);
  return node;
}

function figure(id, height, traces, extra) {
  return make("div", {}, drawing(id, height, traces, extra), asTable(traces, extra));
}

// ---- sections ------------------------------------------------------------------------------------------------------

function heading(run) {
  const from = run.result.provenance;
  const tag = (text, assumed) => make("span", { class: assumed ? "tag assumed" : "tag" }, text);
  const told = [["model", ""], ["topology", ""], ["dispatch", "dispatch "], ["routing", "routing "], ["costs", "costs "], ["player", "player "], ["seed", "seed "]];
  const tags = told.filter(([key]) => from[key] !== undefined).map(([key, lead]) => tag(lead + from[key], /assumed/.test(String(from[key]))));
  return make("header", {}, make("h1", {}, label(run)), make("div", {}, ...tags));
}

function cards({ result }) {
  const known = CARDS.filter(([name]) => result.metrics[name]);
  const card = ([name, label]) => {
    const { value, unit, low, high } = result.metrics[name];
    const band = low === undefined ? [] : [make("span", { class: "band" }, "80 %: ", number("low", name, low, unit), " .. ", number("high", name, high, unit))];
    return make("div", { class: "card", title: name }, number("card", name, value, unit), make("span", {}, label), ...band);
  };
  return make("div", { class: "cards" }, ...known.map(card));
}

function ladder({ result, pictures }) {
  const total = result.metrics.step_time_s ? result.metrics.step_time_s.value : Object.values(result.breakdown).reduce((a, b) => a + (b || 0), 0);
  const keys = Object.keys(result.breakdown);
  const rows = keys.map((key) => {
    const value = result.breakdown[key];
    const label = make("span", {}, make("i", { class: "key", style: `background:${colour((RUNGS[key] || [])[1] || "--other")}` }), (RUNGS[key] || [key])[0]);
    return { cells: [label, number("breakdown", key, value, "s"), value === null ? "" : percent(value / total)] };
  });
  rows.push({ class: "total", cells: ["Step", number("breakdown", "total", total, "s"), percent(1)] });
  const note = "Replays of the same step, each with one more thing real and each a lower bound of the next; what they add is the step time.";
  const words = make("ul", { class: "words" }, ...[...pictures.words, ...(pictures.advice || [])].map((text) => make("li", {}, text)));
  return panel("Where did the time go", note, words, make("div", { class: "pair" }, ladderFigure(result.breakdown, total), table([["", 0], ["time", 1], ["share", 1]], rows)));
}

/* What balanced compute consists of: an operator's time, what it reaches of the device, what binds it, its kernel. */
function operators({ result }) {
  const found = result.provenance.operators || [];
  if (!found.length) return make("span");
  const step = result.metrics.step_time_s.value;
  const whole = (text) => make("span", { class: "whole" }, text);
  const share = (value) => (value === null ? "" : make("span", { class: "reached" }, `${(value * 100).toFixed(0)} %`, bar(value)));
  const rows = found.filter(({ seconds: time }) => time >= 0.002 * step).map((one) => ({ cells: [
    whole(one.label), number("operator", one.label, one.seconds, "s"), percent(one.seconds / step), share(one.of_peak_flops), share(one.of_bandwidth),
    whole(one.task === "waiting" ? "" : one.bound), make("span", { class: "whole kernel" }, one.kernels.join(", ")),
  ] }));
  const note = "Time on the GPU that computes longest with balanced rows; what the operator reaches of the device's peak FLOP/s and memory rate with the rows as they are, all GPUs together. Bound by neither: below 30 % of both, its start-up or its kernel decides. Operators below 0.2 % of the step are left out.";
  return panel("Balanced compute by operator", note, table([["operator", 0], ["time", 1], ["share", 1], ["of FLOP/s", 1], ["of memory", 1], ["bound by", 0], ["kernel", 0]], rows));
}

function ladderFigure(breakdown, total) {
  const keys = Object.keys(breakdown);
  const label = (key) => (RUNGS[key] || [key])[0];
  const [scale, unit] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]].find(([size]) => total >= size) || [1e-6, "µs"];
  let reach = 0;
  const base = keys.map((key) => { const from = reach; reach += breakdown[key] || 0; return from / scale; });
  const length = keys.map((key) => (breakdown[key] || 0) / scale);
  const text = keys.map((key) => (breakdown[key] === null ? "not played" : seconds(breakdown[key])));
  const trace = {
    type: "bar", orientation: "h", y: [...keys.map(label), "Step"], base: [...base, 0], x: [...length, total / scale],
    text: [...text, seconds(total)], textposition: [...length.map((one) => (one * scale > total / 3 ? "inside" : "outside")), "inside"], insidetextfont: { color: colour("--panel") }, cliponaxis: false, hovertemplate: "%{y}: %{text}<extra></extra>",
    marker: { color: [...keys.map((key) => colour((RUNGS[key] || [])[1] || "--other")), colour("--soft")] },
  };
  return drawing("ladder", 300, [trace], {
    xaxis: { title: { text: `time (${unit})` }, rangemode: "tozero", range: [0, (total / scale) * (innerWidth < 600 ? 1.8 : 1.28)] },
    yaxis: { autorange: "reversed", gridcolor: "rgba(0,0,0,0)", ticklabelstandoff: 6 }, showlegend: false, bargap: 0.28,
  });
}

function classColour(name, index) {
  const known = COLOURS[name] || COLOURS[name.replace(/_backward$/, "")];
  return known || SPARE[index % SPARE.length];
}

function ganttTraces(gantt) {
  return gantt.classes.map((name, index) => {
    const bars = gantt.class.map((one, bar) => [one, bar]).filter(([one]) => one === index).map(([, bar]) => bar);
    const told = (bar) => `${name}, layer ${gantt.layer[bar]}, micro-batch ${gantt.micro_batch[bar]}<br>${seconds(gantt.length_us[bar] * 1e-6)} from ${digits(gantt.start_us[bar], 7)} µs`;
    return {
      type: "bar", orientation: "h", name, x: bars.map((bar) => gantt.length_us[bar]), base: bars.map((bar) => gantt.start_us[bar]),
      y: bars.map((bar) => gantt.row[bar]), width: 0.82, text: bars.map(() => name.replace(/_/g, " ")), textposition: "inside",
      insidetextanchor: "middle", textangle: 0, textfont: { color: inkOn(classColour(name, index)), size: 10 }, hovertext: bars.map(told), hoverinfo: "text",
      marker: { color: classColour(name, index), opacity: /_backward$/.test(name) ? 0.75 : 1, line: { width: 0.5, color: colour("--panel") } },
    };
  }).filter((trace) => trace.x.length);
}

function gantt({ pictures }) {
  const data = pictures.gantt;
  const streams = new Set(data.rows.map((row) => row.stream)).size;
  const lines = data.rows.map((_, row) => row).filter((row) => row && row % streams === 0)
    .map((row) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: row - 0.5, y1: row - 0.5, line: { color: colour("--line"), width: 1 } }));
  const ranks = new Set(data.rows.map((row) => row.rank)).size;
  const layers = data.layers.length && data.layers.length <= 3 ? `layers ${data.layers.join(" and ")}` : "all layers";
  const note = `${layers}, ${seconds((data.last_us - data.first_us) * 1e-6)} of ${seconds(data.step_us * 1e-6)}; ${ranks} of ${data.ranks_of} ranks${data.chosen ? "" : ", from the least to the most busy among them"}, two streams each. White space on a stream is waiting; a transfer's bar lasts until the rank's own sends and receives are done.`;
  const extra = {
    barmode: "overlay", uniformtext: { minsize: 10, mode: "hide" }, shapes: lines, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { title: { text: "µs since the step began" }, range: [data.first_us, data.last_us], tickformat: ",.6~g" },
    yaxis: { tickvals: data.rows.map((_, row) => row), ticktext: data.rows.map((row) => `GPU ${row.rank} ${row.stream} `), range: [data.rows.length - 0.5, -0.5], showgrid: false, zeroline: false },
    margin: { l: 10, r: 10, t: 46, b: 44 },
  };
  return panel("One window of the step", note.replace("two streams", `${streams} stream${streams > 1 ? "s" : ""}`), figure("gantt", 130 + 25 * data.rows.length, ganttTraces(data), extra));
}

const ramp = () => [[0, colour("--low")], [0.5, colour("--accent")], [1, colour("--high")]];

function experts({ pictures }) {
  const rows = pictures.experts.rows;
  if (!rows.length) return make("span");
  const mean = rows.map((row) => row.reduce((a, b) => a + b, 0) / row.length || 1);
  const z = rows.map((row, layer) => row.map((value) => value / mean[layer]));
  const text = rows.map((row) => row.map((value) => value.toLocaleString("en-US")));
  const trace = { type: "heatmap", z, text, zmin: 0, zmax: Math.max(2, ...z.flat()), colorscale: ramp(), colorbar: { thickness: 12, outlinewidth: 0, title: { text: "× mean", side: "right" } },
    hovertemplate: "expert layer %{y}, expert %{x}<br>%{text} rows, %{z:.2f} × the mean<extra></extra>" };
  const note = "Rows (token, choice) that each expert computed, over the mean of its layer: 1 is balanced.";
  return panel("Expert load", note, figure("experts", 420, [trace], { xaxis: { title: { text: "expert" }, constrain: "domain", showgrid: false }, yaxis: { title: { text: "expert layer" }, autorange: "reversed", showgrid: false } }));
}

function traffic({ pictures }) {
  const { unit, bytes: matrix } = pictures.traffic;
  if (matrix.length < 2) return make("span");
  const text = matrix.map((row) => row.map(bytes));
  const trace = { type: "heatmap", z: matrix, text, zmin: 0, zmax: Math.max(1, ...matrix.flat()), colorscale: ramp(), colorbar: { thickness: 12, outlinewidth: 0, ...byteTicks(Math.max(1, ...matrix.flat())) },
    hovertemplate: `${unit} %{y} to ${unit} %{x}<br>%{text}<extra></extra>` };
  const note = `Bytes that tokens carried from ${unit} to ${unit} in the whole step, after the all-to-all's own deduplication.`;
  return panel("Traffic", note, figure("traffic", 420, [trace], { xaxis: { title: { text: `to ${unit}` }, showgrid: false, constrain: "domain" }, yaxis: { title: { text: `from ${unit}` }, autorange: "reversed", showgrid: false, scaleanchor: "x", constrain: "domain" } }));
}

function congestion({ result }) {
  const { hot_spots: spots, saturation, incast_degree: incast } = result.provenance.congestion;
  if (!spots.length) return panel("Hot links", "No link carried anything.");
  const who = (ranks) => make("span", { class: "whole" }, ranks.map(({ rank, share }) => `${rank} (${(share * 100).toFixed(0)} %)`).join(", "));
  const expert = (one) => `${one.expert} of layer ${one.layer}`;
  const value = (spot, key, unit) => (spot[key] === null ? "not known" : number(`link-${key}`, spot.link, spot[key], unit, formatted(key, spot[key], unit)));
  const rows = spots.map((spot) => ({ cells: [
    make("span", { class: "whole" }, spot.link), value(spot, "utilisation", "1"), value(spot, "bytes", "B"), `${bytes(spot.capacity)}/s`, value(spot, "busy_s", "s"), value(spot, "saturated_s", "s"),
    who(spot.senders), who(spot.receivers), make("span", { class: "experts" }, spot.experts.length ? `GPU ${spot.experts[0].rank}: ${spot.experts.map(expert).join(", ")}` : ""),
  ] }));
  const most = Math.max(...incast);
  const note = `Used: bytes over what the link could have carried in the step, at the rate that the kernels in use achieve. ${spots[0].saturated_s === null ? "Full is not known" : "Full"}: ${saturation}. The experts are the busiest ones of the GPU with the largest share. Up to ${most} GPUs send to one in one collective (${incast.filter((one) => one === most).length} of ${incast.length} GPUs hear that many).`;
  return panel("Hot links", note, table([["link", 0], ["used", 1], ["bytes", 1], ["rate", 1], ["busy", 1], ["full", 1], ["sent by GPU", 0], ["received by GPU", 0], ["experts there", 0]], rows));
}

function linkHeat({ pictures }) {
  const { links, step_s: step, utilisation } = pictures.link_heat;
  if (!links.length) return make("span");
  const width = step / utilisation[0].length, phone = innerWidth < 600; // where the kernel stands in the table alone
  const trace = { type: "heatmap", z: utilisation, y: links, x: utilisation[0].map((_, bin) => (bin + 0.5) * width * 1e3), zmin: 0, zmax: Math.max(...utilisation.flat()), colorscale: ramp(),
    colorbar: { thickness: 12, outlinewidth: 0, tickformat: ".0%" }, hovertemplate: "%{y} at %{x:.4~g} ms<br>%{z:.1%} of its capacity<extra></extra>" };
  const note = `The ${links.length} hottest links in ${utilisation[0].length} slices of the step; a transfer counts with its mean rate from first release to last byte.`;
  return panel("Links over time", note, figure("link-heat", 90 + 17 * links.length, [trace], { xaxis: { title: { text: phone ? "ms" : "ms since the step began" }, showgrid: false }, yaxis: { autorange: "reversed", showgrid: false, tickvals: links, ticktext: links.map((link) => (phone ? link.replace(/ \(.*\)$/, " …") : link)), tickfont: { size: 11 } } }));
}

/* Between the colours of the ramp, as plotly does for heatmaps. */
function rampColour(share) {
  const [low, middle, high] = ["--low", "--accent", "--high"].map((name) => colour(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
  const [from, to, part] = share < 0.5 ? [low, middle, share * 2] : [middle, high, share * 2 - 1];
  return `rgb(${from.map((one, at) => Math.round(one + (to[at] - one) * part)).join(",")})`;
}

/* Names of what stands in one row, as many as do not run into each other on this screen. */
function spaced(chosen, from, to) {
  const pixels = 0.85 * (Math.min(innerWidth, 1100) - 90); // without margins, and what plotly leaves free at both ends
  const row = {};
  const shown = new Set([...chosen].sort((one, other) => one.x - other.x).filter(({ name, x, y }) => {
    const at = ((x - from) / Math.max(to - from, 1e-9)) * pixels, half = 3.7 * name.length + 3;
    if (row[y] !== undefined && at - half < row[y]) return false;
    row[y] = at + half;
    return true;
  }));
  return chosen.map((one) => (shown.has(one) ? one.name : ""));
}

function topology({ pictures }) {
  const { nodes, cables, reason } = pictures.topology;
  if (!nodes.length) return reason ? panel("Topology", `Not drawn: ${reason}.`) : make("span");
  const at = Object.fromEntries(nodes.map(({ name, x, y }) => [name, [x, y]]));
  const hottest = Math.max(1e-9, ...cables.flatMap(({ used }) => used.map((one) => one || 0)));
  const steps = 8;
  const share = ({ used }) => Math.max(...used.map((one) => one || 0)) / hottest;
  const lines = [...Array(steps).keys()].map((step) => {
    const own = cables.filter((cable) => Math.min(steps - 1, Math.floor(share(cable) * steps)) === step);
    const along = (axis) => own.flatMap(({ ends }) => [at[ends[0]][axis], at[ends[1]][axis], null]);
    return { type: "scatter", mode: "lines", x: along(0), y: along(1), hoverinfo: "skip", line: { color: rampColour(0.12 + 0.88 * (step + 1) / steps), width: 1 + 2.5 * step / steps } };
  }).filter((trace) => trace.x.length);
  const way = (from, to, used) => (used === null ? "" : `<br>${from} to ${to}: ${percent(used)}`);
  const told = cables.map(({ ends: [a, b], used }) => `${a} and ${b}${way(a, b, used[0])}${way(b, a, used[1])}`);
  const middle = (axis) => cables.map(({ ends }) => (at[ends[0]][axis] + at[ends[1]][axis]) / 2);
  const points = { type: "scatter", mode: "markers", x: middle(0), y: middle(1), text: told, hoverinfo: "text", marker: { size: 9, opacity: 0 } };
  const ends = [Math.min, Math.max].map((most) => most(...nodes.map(({ x }) => x)));
  const dots = (chosen, size, most) => ({ type: "scatter", mode: chosen.length > most ? "markers" : "markers+text", x: chosen.map(({ x }) => x), y: chosen.map(({ y }) => y), text: spaced(chosen, ...ends), hovertext: chosen.map(({ name }) => name), textposition: chosen.map(({ y }) => (y > 0 ? "top center" : "bottom center")), hoverinfo: "text", marker: { symbol: "square", size, color: colour("--ink") } });
  const gpus = nodes.filter(({ name }) => /^gpu\d+$/.test(name)), switches = nodes.filter(({ name }) => !/^gpu\d+$/.test(name));
  const note = `GPUs in one row, switches of a node below them, the others above. Colour and width: utilisation of the busier way of a cable over the whole step, from 0 to ${percent(hottest)}.`;
  const hidden = { visible: false, showgrid: false, zeroline: false };
  const levels = nodes.map(({ y }) => y);
  return panel("Topology", note, figure("topology", 120 + 110 * (new Set(levels).size - 1), [...lines, points, dots(gpus, 5, 16), dots(switches, 9, 40)],
    { showlegend: false, xaxis: hidden, yaxis: { ...hidden, range: [Math.min(...levels) - 0.4, Math.max(...levels) + 0.4] }, margin: { l: 10, r: 10, t: 5, b: 5 } }));
}

function memory({ pictures }) {
  const { rows, capacity } = pictures.memory;
  const pools = Object.entries(capacity).map(([pool, size]) => {
    const own = rows.filter((row) => row.pool === pool);
    const used = own.reduce((total, row) => total + row.bytes, 0);
    const lines = own.map((row) => ({ cells: [row.item, bytes(row.bytes), percent(row.bytes / size), bar(row.bytes / size)] }));
    lines.push({ class: "total", cells: [`${pool}: used of ${bytes(size)}`, bytes(used), percent(used / size), bar(used / size)] });
    return table([["item", 0], ["bytes", 1], ["of the pool", 1], ["", 0]], lines);
  });
  return panel("Memory of the fullest GPU", "What it has to hold during the step.", ...pools);
}

function warnings({ result }) {
  if (!result.warnings.length) return make("span");
  const items = result.warnings.map((text) => make("li", { "data-kind": "warning" }, text));
  return make("section", { class: "panel warnings" }, make("h2", {}, "Warnings"), make("ul", {}, ...items));
}

function told(value) {
  if (value === null || typeof value !== "object") return String(value);
  return Object.entries(value).map(([key, one]) => `${key}: ${typeof one === "number" ? digits(one) : told(one)}`).join(", ") || "none";
}

function provenance({ result }) {
  const rows = Object.entries(result.provenance).filter(([key]) => !["congestion", "operators"].includes(key)).map(([key, value]) => ({ cells: [key, told(value)] }));
  return panel("Provenance", "What the numbers rest on.", table([["", 0], ["", 0]], rows));
}

function allMetrics() {
  const names = [...new Set(runs.flatMap(({ result }) => Object.keys(result.metrics)))];
  const heads = [["metric", 0], ...runs.map((run) => [label(run), 1])];
  const cell = ({ result }, name, run) => {
    const metric = result.metrics[name];
    return metric ? number(runs.length > 1 ? `metric-${run}` : "metric", name, metric.value, metric.unit) : "";
  };
  const rows = names.map((name) => ({ cells: [name, ...runs.map((run, index) => cell(run, name, index))] }));
  return panel("All metrics", "As `moesim run --json` prints them, rounded here to four digits; the document itself stands at the end of the page.", table(heads, rows));
}

/* The scenario as it was played, and the command that plays it again. */
function again({ result, pictures }) {
  if (!pictures.scenario) return make("span");
  return panel("Play it again", "Save the scenario below as scenario.yaml; the same version of moesim gives the same numbers.", ...playAgain(`moesim run scenario.yaml --seed ${result.provenance.seed}`, { "scenario.yaml": pictures.scenario }));
}

function chooser() {
  if (runs.length < 2) return make("span");
  const options = runs.map((run, index) => make("option", index === shown ? { value: index, selected: "" } : { value: index }, label(run)));
  const choice = make("select", {}, ...options);
  choice.addEventListener("change", () => { shown = Number(choice.value); show(); });
  return make("p", { class: "soft" }, make("label", {}, "Run shown: ", choice));
}

function show() {
  const run = runs[shown];
  const raw = make("details", {}, make("summary", {}, "The JSON document"), make("pre", {}, JSON.stringify(run.result, null, 1)));
  const many = runs.length > 1 ? [chooser(), allMetrics()] : [];
  const all = runs.length > 1 ? [] : [allMetrics()];
  document.getElementById("page").replaceChildren(
    ...many, heading(run), cards(run), ladder(run), operators(run), warnings(run), gantt(run), make("div", { class: "halves" }, experts(run), traffic(run)),
    congestion(run), linkHeat(run), topology(run), memory(run), ...all, provenance(run), again(run), raw,
  );
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
show();
