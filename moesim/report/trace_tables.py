"""Tables of `moesim trace`: what a trace is, what it says, and how two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from moesim.routing import TraceHeader


def provenance(header: TraceHeader) -> dict[str, Any]:
    """What the numbers of a trace rest on."""
    return {"model": header.model, "routing": header.basis, "origin": header.origin, "licence": header.licence}


def header_table(header: TraceHeader, tokens: int | None) -> Table:
    """What a trace is; without `tokens`, what counts are."""
    table = Table("trace", "", show_header=False)
    shape = f"{header.moe_layers} MoE layers, top-{header.top_k} of {header.num_experts} experts"
    rows = {"model": header.model, "shape": shape, "tokens": f"{tokens:,}" if tokens else "", "basis": header.basis}
    rows |= {"domains": ", ".join(header.domains), "origin": header.origin, "licence": header.licence}
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """Names, numbers and units; a dash where there is no number."""
    table = Table("mean over layers", "value")
    for name, metric in metrics.items():
        unit = "" if metric["unit"] in ("1", name) else f" {metric['unit']}"
        table.add_row(name.replace("_", " "), "-" if metric["value"] is None else f"{metric['value']:.5g}{unit}")
    return table
