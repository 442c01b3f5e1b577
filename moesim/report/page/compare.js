/* Draws the page of a comparison: what moved from base to variant, and every number of both with its interval. */

const { document: found, parts, names: [base, variant] } = data;
const told = found.provenance;
const digits = (value, count = 4) => String(+value.toPrecision(count));
const STEPS = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]];
const signed = (value, text = digits(value)) => (value > 0 ? `+${text}` : text);

/* From the time of the base to that of the variant, part by part; grey: the interval holds zero. */
function waterfall() {
  const keys = Object.keys(parts).filter((key) => parts[key] && (parts[key].base || parts[key].variant));
  if (!keys.length) return;
  const sum = (side) => keys.reduce((total, key) => total + parts[key][side], 0);
  const [scale, unit] = STEPS.find(([size]) => Math.max(sum("base"), sum("variant")) >= size) || STEPS[2];
  let reach = sum("base");
  const bars = keys.map((key) => {
    const { value, low, high } = parts[key], from = reach;
    reach += value;
    const certain = low > 0 || high < 0;
    return { y: key.replace(/_s$/, "").replace(/_/g, " "), base: from, x: value, color: certain ? css(value > 0 ? "--contention" : "--imbalance") : css("--other"),
      text: `${signed(value / scale)} ${unit} (${signed(low / scale)} .. ${signed(high / scale)})` };
  });
  const whole = (name, length) => ({ y: name, base: 0, x: length, color: css("--ideal"), text: `${digits(length / scale)} ${unit}` });
  const all = [whole(base, sum("base")), ...bars, whole(variant, sum("variant"))];
  const note = `Means over ${told.seeds} paired runs; from the time of the base, part by part, to that of the variant. Grey: the ${told.confidence * 100} % interval of the difference holds zero.`;
  figure(panel("What moved", note), [{
    type: "bar", orientation: "h", y: all.map(({ y }) => y), x: all.map(({ x }) => x / scale), base: all.map(({ base: from }) => from / scale), text: all.map(({ text }) => text),
    textposition: "none", hoverinfo: "y+text", marker: { color: all.map(({ color }) => color) },
  }], { height: 90 + 30 * all.length, xaxis: { title: { text: unit }, rangemode: "tozero" }, yaxis: { autorange: "reversed", automargin: true }, showlegend: false });
}

/* Numbers that differ for certain, as shares of the base's. */
function differences() {
  const certain = Object.entries(found.metrics).filter(([, one]) => one.base && (one.low > 0 || one.high < 0))
    .map(([name, one]) => ({ name, share: (100 * one.value) / Math.abs(one.base), low: (100 * one.low) / Math.abs(one.base), high: (100 * one.high) / Math.abs(one.base) }))
    .sort((one, other) => Math.abs(other.share) - Math.abs(one.share)).slice(0, 25);
  if (!certain.length) return;
  figure(panel("What differs", `Difference to the base in per cent, with its interval: the ${certain.length} largest that are certain.`), [{
    type: "scatter", mode: "markers", x: certain.map(({ share }) => share), y: certain.map(({ name }) => name), marker: { color: css("--accent"), size: 8 },
    text: certain.map(({ low, share, high }) => `${signed(share)} % (${signed(low)} .. ${signed(high)})`), hoverinfo: "y+text",
    error_x: { symmetric: false, array: certain.map(({ share, high }) => high - share), arrayminus: certain.map(({ share, low }) => share - low), color: css("--soft") },
  }], { height: 110 + 20 * certain.length, xaxis: { title: { text: "%" } }, yaxis: { autorange: "reversed", automargin: true } });
}

function metrics() {
  const heads = ["metric", base, variant, "difference", "low .. high", "unit"];
  const head = element("tr", {}, ...heads.map((text, index) => element("th", { textContent: text, scope: "col", className: index % 5 ? "number" : "name" })));
  const rows = Object.entries(found.metrics).map(([name, one]) => {
    const cell = (kind) => element("td", { className: "number" }, shown(kind, name, one[kind], digits(one[kind], 6)));
    const ends = element("td", { className: "number", textContent: `${digits(one.low)} .. ${digits(one.high)}` });
    return element("tr", {}, element("td", { textContent: name }), cell("base"), cell("variant"), cell("value"), ends, element("td", { textContent: one.unit }));
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  panel("Metrics", `Means over ${told.seeds} paired runs, and the mean of their differences.`, element("div", { className: "scroll" }, table));
}

page.append(element("h1", { textContent: `${base} and ${variant}` }), element("p", { id: "verdict", textContent: told.verdict }));
if (found.warnings.length) {
  panel("Warnings", "", element("ul", {}, ...found.warnings.map((text) => element("li", { textContent: text })))).classList.add("warnings");
}
waterfall();
differences();
metrics();
panel("Play it again", "Save the scenarios below under their names; the same version of moesim gives the same numbers.", ...playAgain(data.command, data.scenarios));
