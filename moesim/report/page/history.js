/* Draws the page of a history: every number shown is the document's own. */

const found = data.document;
const told = found.provenance;
const percent = (value) => `${(value * 100).toFixed(1)} %`;
const digits = (value) => String(+value.toPrecision(4));
const size = (bytes) => {
  const power = Math.max(0, Math.min(4, Math.floor(Math.log10(bytes || 1) / 3)));
  return bytes === null ? "not known" : `${digits(bytes / 1000 ** power)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
};
const seconds = (value) => (value >= 1 ? `${+value.toPrecision(4)} s` : `${+(value * 1e3).toPrecision(4)} ms`);
const letter = (regime) => (regime < 26 ? String.fromCharCode(65 + regime) : String(regime + 1));
const inks = ["--other", "--contention", "--ideal", "--imbalance"].map(css);
const number = (text, name, kind, value) => element("td", { className: "number" }, shown(kind, name, value, text));

page.append(
  element("h1", { textContent: `Rebalancing over ${told.windows.length} windows on ${told.gpus} GPUs of ${told.topology}` }),
  element("p", { textContent: found.verdict.text }),
);
if (found.warnings.length) {
  const list = element("ul", {}, ...found.warnings.map((text) => element("li", { textContent: text })));
  panel("Warnings", "", list).classList.add("warnings");
}

function ways() {
  const heads = ["way", "next windows", "moved a change", "changes", "bytes moved", "stall in all"];
  const head = element("tr", {}, ...heads.map((text, index) => element("th", { textContent: text, className: index ? "number" : "name" })));
  const rows = found.ways.map((row) => element("tr", {}, element("td", { textContent: row.way }),
    number(row.objective.toFixed(4), "objective", row.way, row.objective), number(percent(row.moved), "moved", row.way, row.moved),
    number(String(row.changes), "changes", row.way, row.changes), number(size(row.bytes), "bytes", row.way, row.bytes),
    number(row.bytes === null ? "not known" : seconds(row.stall_s), "stall_s", row.way, row.stall_s)));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  panel("Ways to follow the load", `${told.objective}, lower is better: mean over the windows that came after a decision.`,
    element("div", { className: "scroll" }, table));
}

function curves() {
  const parent = panel("Served by what was decided before", `${told.objective} of each window under the placement that stood `
    + "when it came. Letters are regimes: windows of one letter hold nearly the same load.");
  const ticks = told.windows.map((name, index) => `${index + 1}<br>${letter(told.regimes[index])}`);
  const at = told.windows.map((name, index) => index + 1);
  figure(parent, found.ways.map((row, index) => ({
    type: "scatter", mode: "lines+markers", name: row.way, x: at, y: row.each, line: { color: inks[index], width: 2 },
    text: told.windows, hovertemplate: "%{text}: %{y:.4f}",
  })), {
    xaxis: { tickvals: at, ticktext: ticks, title: { text: "window and its regime" } }, yaxis: { title: { text: told.objective } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, margin: { l: 60, r: 20, t: 50, b: 70 },
  });
}

function moves() {
  const parent = panel("What moves", "Slots that need new weights after each window, as a share of all.");
  figure(parent, found.ways.map((row, index) => ({
    type: "bar", name: row.way, x: told.windows.map((name, window) => window + 1), y: row.moved_each, marker: { color: inks[index] },
  })), {
    barmode: "group", xaxis: { dtick: 1, title: { text: "after window" } }, yaxis: { title: { text: "share of slots" }, tickformat: ".0%" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, margin: { l: 60, r: 20, t: 50, b: 50 },
  });
}

ways();
curves();
moves();
