"""Text of `moesim place`: one table of all strategies, what was picked, and whether it will pay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from moesim.report.tables import show_metric
from moesim.units import show_seconds

Document = Mapping[str, Any]
FIRST = ("held out", "drift")


def place_text(document: Document) -> Group:
    """A `moesim place --json` document."""
    told = document["provenance"]
    title = f"{told['objective']} of {told['model']} on {told['gpus']} GPUs of {told['topology']}"
    tables = [one for one in (strategy_table(document), _phase_table(document)) if one is not None]
    parts: list[RenderableType] = [Text(title, style="bold"), *(Padding(one, (0, 0, 1, 2)) for one in tables)]
    parts += [Text(f"Picked: {told['best']}", style="bold"), Text(str(told["verdict"]))]
    parts += [Text(document["ceiling"]["text"])]
    equal = document["verdict"]["equal"]
    parts += [Text(f"Within noise of it: {', '.join(equal)}")] if equal else []
    return Group(*parts, *(Text(f"warning: {text}", style="yellow") for text in document["warnings"]))


def history_text(document: Document) -> Group:
    """A `moesim place --history --json` document."""
    told = document["provenance"]
    table = _numbers("way", "next windows", "moved a change", "changes", "stall in all")
    for row in document["ways"]:
        stall = "not known" if row["stall_s"] is None else show_seconds(row["stall_s"])
        cells = (f"{row['objective']:.4f}", f"{row['moved']:.1%}", str(row["changes"]), stall)
        table.add_row(row["way"], *cells)
    title = f"Rebalancing over {len(told['windows'])} windows on {told['gpus']} GPUs of {told['topology']}"
    parts: list[RenderableType] = [Text(title, style="bold"), Padding(table, (0, 0, 1, 2))]
    parts.append(Text(document["verdict"]["text"]))
    return Group(*parts, *(Text(f"warning: {text}", style="yellow") for text in document["warnings"]))


def strategy_table(document: Document) -> Table:
    """A row a strategy: objective, bound and gap on the training windows, judged values, step time, moves, seconds."""
    rows, unit = document["strategies"], document["metrics"]["objective"]["unit"]
    judged = [name for name in FIRST if any(name in row["judged"] for row in rows)]
    timed, moved = list(rows[0]["step_time_s"]), any(row["moves"] for row in rows)
    steps = [f"step, {name}" for name in timed]
    table = _numbers("strategy", "train", "bound", "gap", *judged, *steps, *(["moves"] if moved else []), "search")
    for row in rows:
        cells = [row["strategy"], _value(row["objective"], unit), _value(row["bound"], unit), _gap(row)]
        cells += [_value(row["judged"].get(name), unit) for name in judged]
        cells += [show_seconds(row["step_time_s"][name]) for name in timed]
        cells += ["-" if row["moves"] is None else f"{row['moves']:,}"] if moved else []
        best = row["strategy"] == document["provenance"]["best"]
        table.add_row(*cells, show_seconds(row["seconds"], 3), style="bold" if best else "")
    return table


def _phase_table(document: Document) -> Table | None:
    """The objective on held-out tokens of each phase, where there are several."""
    rows, unit = document["strategies"], document["metrics"]["objective"]["unit"]
    names = [name for name in rows[0]["judged"] if name not in FIRST]
    if not names:
        return None
    table = _numbers("strategy", *names)
    for row in rows:
        table.add_row(row["strategy"], *(_value(row["judged"][name], unit) for name in names))
    return table


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    return show_metric("", value, unit) if unit == "s" else f"{value:.4f}"


def _gap(row: Mapping[str, Any]) -> str:
    return "-" if row["gap"] is None else f"{row['gap']:z.2%}"


def _numbers(first: str, *heads: str) -> Table:
    """A column of text, then columns of numbers."""
    table = Table(first, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right")
    return table
