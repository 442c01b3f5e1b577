"""Text of a serving run for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from moesim.errors import printable
from moesim.report.explain import PARTS, Document
from moesim.report.tables import show_metric
from moesim.units import show_bytes, show_seconds


def serve_text(document: Document) -> Group:
    """Metrics, where a request's time went, the KV cache, and the warnings."""
    told = document["provenance"]
    engine = f"{_replicas(told)}, {told['gpus']} GPUs, {told['model']} on {told['topology']}"
    warnings = [Text(printable(f"warning: {text}"), style="yellow") for text in document["warnings"]]
    return Group(
        Text(str(told["scenario"]), style="bold"), Text(f"  {engine}"), _indent(_metrics(document)),
        Text("Where did a request's time go", style="bold"), _indent(_parts(document)),
        Text("Memory of the fullest GPU", style="bold"), *_memories(told), *warnings,
    )  # fmt: skip


def _replicas(told: Document) -> str:
    """Preset and number, of each pool."""
    if "pools" not in told:
        return f"{told['preset']}, {told['replicas']} replica(s)"
    return " + ".join(f"{one['replicas']} {role} ({one['preset']}, {one['gpus_of_replica']} GPUs each)"
                      for role, one in told["pools"].items())  # fmt: skip


def _memories(told: Document) -> list[Text]:
    pools = told.get("pools")
    return [Text(f"  {role}: {_memory(one)}") for role, one in pools.items()] if pools else [Text(f"  {_memory(told)}")]


def _metrics(document: Document) -> Table:
    """name, value, and the interval where several seeds were run; memory is told in a line of its own."""
    interval = document["provenance"]["interval"]
    table = _plain("metric", "value", interval) if interval else _plain("metric", "value")
    for name, metric in document["metrics"].items():
        if "memory." in name:
            continue
        ends = [show_metric(name, metric[end], metric["unit"]) for end in ("low", "high") if end in metric]
        table.add_row(
            name, show_metric(name, metric["value"], metric["unit"]), *([" .. ".join(ends)] if interval else [])
        )
    return table


def _parts(document: Document) -> Table:
    table = _plain("", "mean", "share")
    total = sum(document["breakdown"].values())
    for key, label in PARTS.items():
        if key not in document["breakdown"]:
            continue
        seconds = document["breakdown"][key]
        table.add_row(label, show_seconds(seconds), f"{seconds / max(total, 1e-12):.1%}")
    table.add_row("request", show_seconds(total), "100.0%", style="bold")
    return table


def _memory(told: Document) -> str:
    rows = ", ".join(f"{item} {show_bytes(size)}" for item, size in told["memory"].items())
    return f"{rows}; {told['kv_blocks']:,} KV blocks of {told['engine']['block_size']} tokens a scheduler"


def _plain(*heads: str) -> Table:
    """The first column is text, the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=any(heads), pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    return table


def _indent(table: Table) -> Padding:
    return Padding(table, (0, 0, 1, 2), expand=False)
