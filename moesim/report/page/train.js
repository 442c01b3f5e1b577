/* Draws the page of a training step: every number shown is the document's own. */

const { document: found, pictures } = data;
const told = found.provenance;
const digits = (value, count = 4) => String(+value.toPrecision(count));
const seconds = (value) => (value >= 1 ? `${digits(value)} s` : value >= 1e-3 ? `${digits(value * 1e3)} ms` : `${digits(value * 1e6)} µs`);
const parts = {
  compute_s: "computing", exposed_alltoall_s: "all-to-all that nothing hides", waiting_group_s: "waiting in all-to-alls",
  exposed_tensor_parallel_s: "transfers of tensor and context groups", exposed_sharding_s: "sharded layers gathered and reduced",
  bubble_s: "waiting for other stages", gradient_sync_s: "gradients reduced, parameters gathered", optimizer_s: "optimizer",
};

function metrics() {
  const head = element("tr", {}, ...["metric", "value", "unit", "low .. high"].map((text, index) => element("th", { textContent: text, className: index === 1 ? "number" : "name" })));
  const rows = Object.entries(found.metrics).map(([name, metric]) => {
    const value = element("td", { className: "number" }, shown("metric", name, metric.value, digits(metric.value, 6)));
    const ends = metric.low === undefined ? "" : `${digits(metric.low)} .. ${digits(metric.high)}`;
    return element("tr", {}, element("td", { textContent: name }), value, element("td", { textContent: metric.unit }), element("td", { textContent: ends }));
  });
  panel("Metrics", "docs/METRICS.md has their formulas.", element("div", { className: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))));
}

function pipeline() {
  const left = pictures.left_out ? ` ${pictures.left_out} bars at the end of ranks are not drawn.` : "";
  const parent = panel("Pipeline", `One GPU of each rank of ${told.pipeline}; between bars it waits for other stages.${left}`);
  const { rank, what, kind, start_us: start, length_us: length } = pictures.slots;
  const traces = [...new Set(kind)].map((name) => {
    const at = kind.flatMap((one, index) => (one === name ? [index] : []));
    return {
      type: "bar", orientation: "h", name, y: at.map((index) => rank[index]), base: at.map((index) => start[index] / 1e3),
      x: at.map((index) => length[index] / 1e3), hovertext: at.map((index) => `${what[index]}: ${seconds(length[index] / 1e6)}`), hoverinfo: "text",
    };
  });
  figure(parent, traces, { barmode: "overlay", height: 120 + 24 * told.stages.length, xaxis: { title: { text: "ms" } }, yaxis: { title: { text: "rank of the pipeline" }, autorange: "reversed", dtick: 1 } });
}

function memory() {
  const parent = panel("Memory", "HBM of the fullest GPU of each rank of the pipeline, by what it holds.");
  const items = [...new Set(told.stages.flatMap((stage) => Object.keys(stage.rows).map((row) => row.replace(/of \d+ passes/, "of passes alive"))))];
  const of = (stage, item) => Object.entries(stage.rows).filter(([row]) => row.replace(/of \d+ passes/, "of passes alive") === item).reduce((sum, [, bytes]) => sum + bytes, 0);
  figure(parent, items.map((item) => ({ type: "bar", name: item, x: told.stages.map((stage) => stage.rank), y: told.stages.map((stage) => of(stage, item) / 1e9) })),
    { barmode: "stack", xaxis: { title: { text: "rank of the pipeline" }, dtick: 1 }, yaxis: { title: { text: "GB" } } });
}

function longRun() {
  if (!told.run) return;
  const parent = panel("Run", "Seconds of a run of many steps, mean over trials; below, the step where routing was looked up anew.");
  const keys = { run_checkpoint_s: "checkpoints", run_lost_s: "work done again", run_restart_s: "getting back", run_straggler_s: "stragglers" };
  figure(parent, [{ type: "bar", orientation: "h", y: Object.values(keys), x: Object.keys(keys).map((key) => found.metrics[key].value) }],
    { height: 240, xaxis: { title: { text: "s" } }, yaxis: { automargin: true, autorange: "reversed" } });
  const series = told.run.series;
  if (series.length > 1) {
    figure(parent, [{ type: "scatter", mode: "lines+markers", x: series.map((one) => one.step), y: series.map((one) => one.step_time_s * 1e3), line: { shape: "hv" } }],
      { height: 280, xaxis: { title: { text: "step" } }, yaxis: { title: { text: "ms" } } });
  }
}

page.append(
  element("h1", { textContent: pictures.name }),
  element("p", { className: "soft", textContent: `${told.model} on ${told.gpus} GPUs of ${told.topology}, ${told.pipeline}; routing ${told.routing}` }),
);
if (found.warnings.length) {
  panel("Warnings", "", element("ul", {}, ...found.warnings.map((text) => element("li", { textContent: text })))).classList.add("warnings");
}
{
  const parent = panel("Where did the time of the last rank go", "Of the GPU that ends last; the parts add up to the step.");
  const keys = Object.keys(parts).filter((key) => found.breakdown[key] > 0);
  figure(parent, [{ type: "bar", orientation: "h", x: keys.map((key) => found.breakdown[key]), y: keys.map((key) => parts[key]), text: keys.map((key) => seconds(found.breakdown[key])) }],
    { height: 300, xaxis: { title: { text: "s" } }, yaxis: { automargin: true, autorange: "reversed" } });
}
pipeline();
memory();
longRun();
metrics();
panel("Play it again", "Save the scenario below as scenario.yaml; the same version of moesim gives the same numbers.",
  ...playAgain("moesim run scenario.yaml", { "scenario.yaml": pictures.scenario }));
