/* Draws the page of a serving run: every number shown is the document's own. */

const { document: found, pictures } = data;
const told = found.provenance;
const digits = (value, count = 4) => String(+value.toPrecision(count));
const seconds = (value) => (value >= 1 ? `${digits(value)} s` : value >= 1e-3 ? `${digits(value * 1e3)} ms` : `${digits(value * 1e6)} µs`);
const ofPools = (key) => (told.pools ? Object.entries(told.pools).map(([role, one]) => `${one[key]} (${role})`).join(", ") : told[key]);
const names = { ttft: "time to the first token", tpot: "time per output token", itl: "gaps between tokens", e2el: "whole request" };
const parts = Object.fromEntries(Object.entries(pictures.parts).filter(([key]) => key in found.breakdown));

function metrics() {
  const spread = told.interval !== null;
  const heads = ["metric", "value", "unit", ...(spread ? [told.interval] : [])];
  const head = element("tr", {}, ...heads.map((text, index) => element("th", { textContent: text, className: index === 1 ? "number" : "name" })));
  const rows = Object.entries(found.metrics).map(([name, metric]) => {
    const value = element("td", { className: "number" }, shown("metric", name, metric.value, digits(metric.value, 6)));
    const ends = spread ? [element("td", { textContent: `${digits(metric.low)} .. ${digits(metric.high)}` })] : [];
    return element("tr", {}, element("td", { textContent: name }), value, element("td", { textContent: metric.unit }), ...ends);
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  panel("Metrics", "By the names and formulas of vLLM's benchmark.", element("div", { className: "scroll" }, table));
}

function latencies() {
  const parent = panel("Latencies", "Share of requests (of gaps, for the gaps between tokens) that take no longer; dashed: the limits of the scenario.");
  const halves = element("div", { className: "halves" });
  parent.append(halves);
  for (const [name, label] of Object.entries(names)) {
    const curve = pictures.cdf[name];
    if (!curve.seconds.length) continue;
    const half = element("div", {}, element("p", { className: "soft", textContent: label }));
    halves.append(half);
    const limit = pictures.limits[name];
    const shapes = limit === undefined ? [] : [{ type: "line", x0: limit * 1e3, x1: limit * 1e3, y0: 0, y1: 1, line: { dash: "dash", color: css("--hot") } }];
    figure(half, [{ type: "scatter", mode: "lines", name: label, x: curve.seconds.map((value) => value * 1e3), y: curve.share }],
      { shapes, height: 280, xaxis: { title: { text: "ms" }, rangemode: "tozero" }, yaxis: { range: [0, 1.02] } });
  }
}

function overTime(title, note, keys, unit) {
  const parent = panel(title, pictures.undrawn ? `${note} Replicas not drawn: ${pictures.undrawn}.` : note);
  const many = pictures.replicas.length > 1;
  const traces = pictures.replicas.flatMap((replica) => keys.map(([key, label]) => ({
    type: "scatter", mode: "lines", name: many ? `${label}, ${replica.name}` : label, x: replica.seconds, y: replica[key], line: { shape: "hv" },
  })));
  figure(parent, traces, { xaxis: { title: { text: "s" } }, yaxis: { title: { text: unit }, rangemode: "tozero" } });
}

page.append(
  element("h1", { textContent: pictures.name }),
  element("p", { className: "soft", textContent: `${told.model} on ${told.gpus} GPUs of ${told.topology}, ${ofPools("replicas")} replica(s), ${told.preset}; routing ${told.routing}` }),
);
if (found.warnings.length) {
  panel("Warnings", "", element("ul", {}, ...found.warnings.map((text) => element("li", { textContent: text })))).classList.add("warnings");
}
latencies();
{
  const parent = panel("Where did a request's time go", "Mean over the requests that are counted; the parts add up to a request's mean time.");
  const keys = Object.keys(parts);
  figure(parent, [{ type: "bar", orientation: "h", x: keys.map((key) => found.breakdown[key]), y: keys.map((key) => parts[key]), text: keys.map((key) => seconds(found.breakdown[key])) }],
    { height: 260, xaxis: { title: { text: "s" } }, yaxis: { automargin: true, autorange: "reversed" } });
}
overTime("Queue and batch", "Requests that run and that wait at the ends of steps.", [["running", "running"], ["waiting", "waiting"]], "requests");
overTime("KV cache", `Share of the ${ofPools("kv_blocks")} blocks of each scheduler that is held.`, [["kv", "KV blocks"]], "share");
if (Object.keys(pictures.scaled).length) {
  const parent = panel("Replicas", "That are paid: while they start, serve and empty.");
  const traces = Object.entries(pictures.scaled).map(([name, curve]) => ({
    type: "scatter", mode: "lines", name, x: [...curve.seconds, Math.max(...pictures.replicas.flatMap((one) => one.seconds))],
    y: [...curve.paid, curve.paid.at(-1)], line: { shape: "hv" },
  }));
  figure(parent, traces, { xaxis: { title: { text: "s" } }, yaxis: { title: { text: "replicas" }, rangemode: "tozero" } });
}
metrics();
if (pictures.scenario) {
  panel("Play it again", "Save the scenario below as scenario.yaml; the same version of moesim gives the same numbers.",
    ...playAgain(`moesim run scenario.yaml --seed ${told.seeds[0]}`, { "scenario.yaml": pictures.scenario }));
}
