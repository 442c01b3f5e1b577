"""Text for the terminal: a run, a comparison, lists. Everything is drawn from the JSON document and the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from moesim.errors import printable
from moesim.layout.footprint import RESERVED_FRACTION
from moesim.report.explain import PARTS, RUNGS, Document, rungs, step_seconds
from moesim.report.health import Finding
from moesim.units import show_bandwidth, show_bytes, show_seconds

BAR: Final = 28  # characters of a full bar
WIDE: Final = 240  # columns where nobody says how many there are
SHOWN_LINKS: Final = 3
LEAST_SHARE: Final = 0.005  # of the step: operators below it are one row
STATE_STYLE: Final = {"ok": "green", "missing": "yellow", "wrong": "bold red"}
AS_PERCENT: Final = ("fraction", "utilisation", "mfu", "mbu", "experts_reached")


class _Plain(Console):
    """Names are text: brackets are no markup, and a control character is shown, not obeyed."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As Rich does, of printable text."""
        return super().render_str(printable(text), **options)


def show(renderable: RenderableType, file: IO[str]) -> None:
    """Print to a stream: colour and wrapping on a terminal only, never more than one line a row elsewhere."""
    console = _Plain(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = _Plain(file=file, highlight=False, markup=False, emoji=False, width=WIDE)
    console.print(renderable)


def run_text(document: Document, pictures: Mapping[str, Any]) -> Group:
    """A run: headline numbers, the ladder, the hottest links, memory, and the warnings."""
    parts: list[RenderableType] = [
        Text(str(pictures["name"]), style="bold"),
        *([Text(borrowed, style="bold red")] if (borrowed := document["provenance"].get("borrowed")) else []),
        _indent(metric_table(document)),
        Text("Where did the time go", style="bold"),
        _indent(ladder_table(document)),
        *_operators(document),
    ]
    congestion = document["provenance"]["congestion"]
    if congestion["hot_spots"]:
        parts += [Text("Hottest links", style="bold"), _indent(_link_table(congestion["hot_spots"][:SHOWN_LINKS]))]
        parts.append(_incast(congestion["incast_degree"]))
    for label, key in (("Hottest expert: ", "hottest_expert"), ("Hottest GPU: ", "hottest_rank")):
        if key in document["provenance"]:
            parts.append(Text(label, style="bold").append(document["provenance"][key], style="not bold"))
    parts += [Text(""), Text("Memory of the fullest GPU", style="bold"), _indent(_memory_table(pictures["memory"]))]
    parts += [Text("Rests on", style="bold"), _indent(_basis_table(document["provenance"]))]
    return Group(*parts, *warnings_of(document))


def explain_text(document: Document, pictures: Mapping[str, Any], advice: Sequence[str]) -> Group:
    """The ladder, balanced compute by operator, what both mean in words, and what changes would do."""
    words = [Text(f"- {sentence}") for sentence in (*pictures["words"], *advice)]
    name = Text(str(pictures["name"]), style="bold")
    return Group(name, _indent(ladder_table(document)), *_operators(document), *words, *warnings_of(document))


def _operators(document: Document) -> list[RenderableType]:
    found = document["provenance"]["operators"]
    return [Text("Balanced compute by operator", style="bold"), _indent(operator_table(document))] if found else []


def validation_text(document: Document) -> Group:
    """Every point beside its measurement, then the errors."""
    points = document["provenance"]["rows"]
    keys = [name for name in points[0] if name not in ("unit", "measured", "predicted", "error")]
    table = plain(*keys, "unit", "measured", "predicted", "error")
    for point in points:
        figures = [f"{point[name]:.4g}" for name in ("measured", "predicted")]
        table.add_row(*(point[name] for name in keys), point["unit"], *figures, f"{point['error']:+.1%}")
    return Group(table, _error_table(document), *_held_out_table(document), *warnings_of(document))


def _held_out_table(document: Document) -> Iterator[Table]:
    shown = plain("held out of the profiles' tables", "median", "90 %")
    for name, errors in document["provenance"]["tables"].items():
        shown.add_row(name, *(f"{errors[key]:.2%}" for key in ("median_abs_error", "p90_abs_error")))
    if shown.rows:
        yield shown


def coverage_text(document: Document) -> Group:
    """`validate all`: every operator and its figure, then the errors of each suite."""
    table = plain("operator", "figure", "points", "typical error", "worst", "of")
    table.columns[1].justify = table.columns[-1].justify = "left"
    for one in document["provenance"]["figures"]:
        shown = ["" if one[key] is None else f"{one[key]:.1%}" for key in ("typical", "worst")]
        points = "" if one["points"] is None else str(one["points"])
        table.add_row(one["operator"], one["kind"], points, *shown, one["of"])
    bare, total = (int(document["metrics"][key]["value"]) for key in ("operators_without_figure", "operators"))
    note = (
        "Published: mean and largest error of the points. Held out: median and 90th percentile, of the worst profile."
    )
    return Group(
        table, Text(f"{bare} of {total} operators have no figure.", style="bold"), Text(note), *warnings_of(document)
    )


def _error_table(document: Document) -> Table:
    table = plain("errors", "points", "mean", "largest")
    total = {name: metric["value"] for name, metric in document["metrics"].items()}
    for name, errors in {**document["breakdown"], "all": total}.items():
        held_out = {f"{name}, {key.replace('_', ' ')}": some for key, some in errors.items() if key.startswith("leave")}
        for label, some in {name: errors, **held_out}.items():
            mean, largest = (f"{some[f'{which}_abs_error']:.2%}" for which in ("mean", "max"))
            table.add_row(label, str(int(some["points"])), mean, largest)
    return table


IN_JSON: Final = (
    "memory.", "nic_bytes", "nvlink_bytes", "flops", "active_experts", "drop_rate_", "domain_divergence_bits",
    "experts_per_domain",
)  # fmt: skip


def metric_table(document: Document) -> Table:
    """name, value, and the 80 % band where one is known; what rows of the gallery ask for is in the JSON."""
    hidden = IN_JSON if "gradient_sync_s" in document["metrics"] else (*IN_JSON, "alltoall_s", "comm_overlap_fraction")
    metrics = {name: metric for name, metric in document["metrics"].items() if not name.startswith(hidden)}
    banded = any("low" in metric for metric in metrics.values())
    table = plain("metric", "value", "80 % band") if banded else plain("metric", "value")
    for name, metric in metrics.items():
        ends = [show_metric(name, metric[end], metric["unit"]) for end in ("low", "high") if end in metric]
        table.add_row(
            name, show_metric(name, metric["value"], metric["unit"]), *([" .. ".join(ends)] if banded else [])
        )
    return table


def ladder_table(document: Document) -> Table:
    """rung, seconds, share, bar."""
    table = plain("", "time", "share", bars=True)
    for _, label, seconds, share in rungs(document):
        if seconds is None:
            table.add_row(label, "not played", "", "")
        else:
            table.add_row(label, show_seconds(seconds), f"{share:.1%}", _bar(share))
    table.add_row("step", show_seconds(step_seconds(document)), "100.0%", "", style="bold")
    return table


def operator_table(document: Document) -> Table:
    """operator, seconds, share of the step, of the peak FLOP/s and of the memory's rate, what binds it, kernels."""
    table = plain("operator", "time", "share", "of FLOP/s", "of memory", "bound by", "kernel")
    step, found = step_seconds(document), document["provenance"]["operators"]
    shown = [one for one in found if one["seconds"] >= LEAST_SHARE * step]
    for one in shown:
        reached = ["" if one[key] is None else f"{one[key]:.0%}" for key in ("of_peak_flops", "of_bandwidth")]
        kernels, bound = ", ".join(one["kernels"]), one["bound"] if one["task"] != "waiting" else ""
        share = f"{one['seconds'] / step:.1%}"
        table.add_row(one["label"], show_seconds(one["seconds"]), share, *reached, bound, kernels)
    rest = sum(one["seconds"] for one in found) - sum(one["seconds"] for one in shown)
    if len(found) > len(shown):
        table.add_row(f"{len(found) - len(shown)} others", show_seconds(rest), f"{rest / step:.1%}")
    table.columns[-1].justify = table.columns[-2].justify = "left"
    return table


def comparison_table(document: Document) -> Group:
    """A `moesim compare --json` document: each metric of both, the difference, its interval, and the verdict."""
    metrics = document["metrics"]
    table = plain("metric", "base", "variant", "difference", "95 % interval")
    for name, one in metrics.items():
        shown = [show_metric(name, one[key], one["unit"]) for key in ("base", "variant", "value")]
        table.add_row(name, *shown, " .. ".join(show_metric(name, one[key], one["unit"]) for key in ("low", "high")))
    ladder = plain("rung", "difference")
    for key, seconds in document["breakdown"].items():
        ladder.add_row(RUNGS[key][0] if key in RUNGS else PARTS.get(key, key), show_metric(key, seconds, "s"))
    verdict = Text(str(document["provenance"]["verdict"]), style="bold")
    return Group(_indent(table), _indent(ladder), verdict, *warnings_of(document))


def list_text(lists: Mapping[str, Sequence[tuple[str, str]]]) -> Group:
    """{kind: [(name, what it is)]}."""
    parts: list[RenderableType] = []
    for kind, rows in lists.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, what in rows:
            table.add_row(name, Text(what, style="dim"))
        parts += [Text(kind, style="bold"), _indent(table)]
    return Group(*parts)


def health_table(findings: Sequence[Finding]) -> Table:
    """What `moesim doctor` found."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(Text(finding.state, style=STATE_STYLE[finding.state]), finding.what, Text(finding.found))
    return table


def show_metric(name: str, value: float | None, unit: str) -> str:
    """A number with its unit as people read it: seconds and bytes scaled, fractions in percent."""
    if value is None:
        return "not played"
    if unit == "s":
        return show_seconds(value)
    if unit == "B":
        return show_bytes(value)
    if unit == "1":
        return f"{value:.1%}" if any(word in name for word in AS_PERCENT) else f"{value:.4g}"
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.4g} {unit}"


def _link_table(spots: Sequence[Mapping[str, Any]]) -> Table:
    table = plain("link", "used", "bytes", "rate", "busy", "full", "most of it")
    for spot in spots:
        full = "not known" if spot["saturated_s"] is None else show_seconds(spot["saturated_s"])
        used, rate = f"{spot['utilisation']:.1%}", show_bandwidth(spot["capacity"])
        table.add_row(
            spot["link"], used, show_bytes(spot["bytes"]), rate, show_seconds(spot["busy_s"]), full, cause(spot)
        )
    table.columns[-1].justify = "left"
    return table


def cause(spot: Mapping[str, Any]) -> str:
    """The rank that sends or receives most of a link's bytes, and its busiest expert."""
    way, most = max(
        ((way, one) for way in ("senders", "receivers") for one in spot[way]), key=lambda found: found[1]["share"]
    )
    verb = "sent by" if way == "senders" else "to"
    expert = next((f", expert {e['expert']} of layer {e['layer']}" for e in spot["experts"]), "")
    return f"{most['share']:.0%} {verb} GPU {most['rank']}{expert}"


def _incast(degree: Sequence[int]) -> Text:
    most = max(degree, default=0)
    where = f"GPU {degree.index(most)}" if degree.count(most) == 1 else f"{degree.count(most)} GPUs"
    return Text("Incast: ", style="bold").append(
        f"up to {most} ranks send to one at once ({where})\n", style="not bold"
    )


def _memory_table(memory: Mapping[str, Any]) -> Table:
    table = plain("item", "bytes", "of the pool", bars=True)
    for pool, capacity in memory["capacity"].items():
        rows = [row for row in memory["rows"] if row["pool"] == pool]
        for row in rows:
            share = row["bytes"] / capacity
            table.add_row(row["item"], show_bytes(row["bytes"]), f"{share:.1%}", _bar(share))
        used = sum(row["bytes"] for row in rows)
        table.add_row(
            f"{pool} of {show_bytes(capacity)}, {RESERVED_FRACTION:.0%} kept free",
            show_bytes(used),
            f"{used / capacity:.1%}",
            "",
            style="bold",
        )
    return table


def _basis_table(provenance: Mapping[str, Any]) -> Table:
    table = plain("", "")
    table.columns[1].justify = "left"
    for key in (
        "model",
        "topology",
        "costs",
        "kernel_set",
        "routing",
        "routing_source",
        "tensor_parallel",
        "placement",
        "dispatch",
        "player",
        "player_reason",
        "seed",
    ):
        if key in provenance:
            table.add_row(key.replace("_", " "), str(provenance[key]))
    for role, kernel in provenance.get("kernels", {}).items():
        table.add_row(role, kernel.partition("/")[2])
    if "router" in provenance:
        table.add_row("router", _router_text(provenance["router"]))
    return table


def _router_text(router: Mapping[str, Any]) -> str:
    """In one line: what it is, and what it did in the step."""
    did = f"{router['mean_k']:.3g} rows a token, {router['drop_rate']:.1%} dropped"
    batch = "depends on the batch" if router["batch_dependent"] else "each token by itself"
    return f"{router['router']}: {did}; {batch}, known {router['known']}"


def warnings_of(document: Document) -> list[Text]:
    """A line each."""
    return [Text(printable(f"warning: {text}"), style="yellow") for text in document["warnings"]]


def plain(*heads: str, bars: bool = False) -> Table:
    """The first column is text, the others numbers; `bars` adds one for bars."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=any(heads), pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    if bars:
        table.add_column("", style="cyan")
    return table


def _bar(share: float) -> str:
    return "█" * round(BAR * min(max(share, 0.0), 1.0))


def _indent(renderable: RenderableType) -> Padding:
    return Padding(renderable, (0, 0, 1, 2), expand=False)
