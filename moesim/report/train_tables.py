"""Text of a pipelined training step for the terminal."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from moesim.errors import printable
from moesim.report.explain import Document
from moesim.report.tables import show_metric
from moesim.units import show_bytes, show_seconds

PARTS: Final = {
    "compute_s": "computing", "exposed_alltoall_s": "all-to-all that nothing hides",
    "waiting_group_s": "waiting for others in all-to-alls",
    "exposed_tensor_parallel_s": "transfers of tensor and context groups",
    "exposed_sharding_s": "sharded layers gathered and reduced",
    "bubble_s": "waiting for other stages",
    "gradient_sync_s": "gradients reduced, parameters gathered", "optimizer_s": "optimizer",
}  # fmt: skip


def train_text(document: Document) -> Group:
    """Metrics, where the time of the rank that ends last went, every pipeline rank, and the warnings."""
    told = document["provenance"]
    job = f"{told['gpus']} GPUs, {told['pipeline']}, {told['model']} on {told['topology']}"
    borrowed = [Text(told["borrowed"], style="bold red")] if "borrowed" in told else []
    warnings = [Text(printable(f"warning: {text}"), style="yellow") for text in document["warnings"]]
    return Group(
        Text(str(told["scenario"]), style="bold"), *borrowed, Text(f"  {job}"), _indent(_metrics(document)),
        Text("Where did the time of the last rank go", style="bold"), _indent(_parts(document)),
        Text("Pipeline ranks", style="bold"), _indent(_stages(document)), *warnings,
    )  # fmt: skip


def _metrics(document: Document) -> Table:
    """name, value, and of means over trials the interval."""
    means = any("low" in metric for metric in document["metrics"].values())
    table = _plain("metric", "value", "95 % interval") if means else _plain("metric", "value")
    for name, metric in document["metrics"].items():
        shown = f"{metric['value']:.1%}" if name.startswith(("mfu", "bubble")) else None
        ends = [show_metric(name, metric[end], metric["unit"]) for end in ("low", "high") if end in metric]
        value = shown or show_metric(name, metric["value"], metric["unit"])
        table.add_row(name, value, *([" .. ".join(ends)] if means else []))
    return table


def _parts(document: Document) -> Table:
    table, total = _plain("", "time", "share"), sum(document["breakdown"].values())
    for key, label in PARTS.items():
        if (seconds := document["breakdown"].get(key)) is None:
            continue
        table.add_row(label, show_seconds(seconds), f"{seconds / total:.1%}")
    return table


def _stages(document: Document) -> Table:
    table = _plain("rank", "layers", "passes alive", "memory", "busy")
    for one in document["provenance"]["stages"]:
        layers = ", ".join(f"{first}-{last - 1}" for first, last in one["layers"])
        of = f" of {show_bytes(one['capacity_bytes'])}" if "capacity_bytes" in one else ""  # runs of before have none
        memory = show_bytes(one["memory_bytes"]) + of
        table.add_row(str(one["rank"]), layers, str(one["passes_alive"]), memory, f"{one['busy']:.1%}")
    return table


def _plain(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left")
    return table


def _indent(table: Table) -> Padding:
    return Padding(table, (0, 0, 0, 2))
