"""The page of `moesim trace stats --report`: load by layer and expert, affinity, imbalance over time, in one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.report.drawing import panels_of
from moesim.routing import RoutingTrace
from moesim.routing.stats import affinity, balance, load
from moesim.routing.stats.domains import domain_divergence
from moesim.routing.stats.summary import Summary

MAX_STEPS: Final = 400  # points of the picture over time; more steps are averaged into as many
LAYERS_SHOWN: Final = 3  # first, middle and last


def trace_page(trace: RoutingTrace, summary: Summary) -> str:
    """A self-contained HTML page; its numbers stand in it as JSON."""
    return panels_of(f"moesim trace: {trace.header.model}", trace_data(trace, summary), "trace.js")


def trace_data(trace: RoutingTrace, summary: Summary) -> dict[str, Any]:
    """What the page shows: header, numbers and pictures as plain data."""
    header = trace.header
    return {
        "header": {"model": header.model, "basis": header.basis, "origin": header.origin, "domains": header.domains},
        "summary": summary.to_json(),
        "load": _rounded(load.shares(trace.counts()) * header.num_experts),
        "affinity": _by_layer(trace.header.moe_layers - 1, lambda layer: _successors(trace, layer)),
        "coactivation": _by_layer(trace.header.moe_layers, lambda layer: _partners(trace, layer)),
        "imbalance": _imbalance(trace),
        "domains": _rounded(domain_divergence(trace)) if len(header.domains) > 1 else None,
    }


def _by_layer(layers: int, rows: Callable[[int], Any]) -> list[dict[str, Any]]:
    """The first, middle and last of `layers` tables."""
    if layers < 1:
        return []
    chosen = np.unique(np.linspace(0, layers - 1, LAYERS_SHOWN).astype(int))
    return [{"layer": int(layer), "rows": rows(int(layer))} for layer in chosen]


def _partners(trace: RoutingTrace, layer: int) -> Any:
    """P(column expert is chosen too | row expert is chosen), without the diagonal."""
    table = affinity.coactivation(trace, layer).astype(np.float64)
    own = np.maximum(np.diagonal(table), 1)[:, None]
    return _rounded(np.where(np.eye(len(table), dtype=bool), np.nan, table / own))


def _successors(trace: RoutingTrace, layer: int) -> Any:
    """P(expert of the next layer | expert of this layer) of heaviest choices."""
    return _rounded(load.shares(affinity.transitions(trace, layer, choices=1)))


def _imbalance(trace: RoutingTrace) -> dict[str, Any]:
    """Max over mean of the experts in each step: mean and worst layer, steps averaged into at most MAX_STEPS."""
    table = balance.step_imbalance(trace)
    edges = np.linspace(0, len(table), min(len(table), MAX_STEPS) + 1).astype(int)
    first = edges[:-1]
    width = np.diff(edges)
    mean, worst = (np.add.reduceat(v, first) / width for v in (table.mean(axis=1), table.max(axis=1)))
    return {"step": first.tolist(), "mean": _rounded(mean), "worst": _rounded(worst)}


def _rounded(values: npt.NDArray[Any]) -> Any:
    """Nested lists of six digits; nan becomes null."""
    table = np.round(values, 6).astype(object)
    table[~np.isfinite(values)] = None
    return table.tolist()
