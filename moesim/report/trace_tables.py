"""Tables of `moesim trace`: what a trace is, what it says, and how two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from moesim.routing import TraceHeader


def header_table(header: TraceHeader, tokens: int) -> Table:
    """What a trace is."""
    table = Table("trace", "", show_header=False)
    shape = f"{header.moe_layers} MoE layers, top-{header.top_k} of {header.num_experts} experts"
    rows = {"model": header.model, "shape": shape, "tokens": f"{tokens:,}", "basis": header.basis}
    rows |= {"domains": ", ".join(header.domains), "origin": header.origin, "licence": header.licence}
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def numbers_table(title: str, numbers: Mapping[str, Any]) -> Table:
    """Names and numbers; a dash where there is none."""
    table = Table(title, "value")
    for name, value in numbers.items():
        table.add_row(name.replace("_", " "), "-" if value is None else f"{value:.5g}")
    return table
