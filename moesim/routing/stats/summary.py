"""Everything that `moesim trace stats` says about a trace, as one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.routing.shape import NO_EXPERT
from moesim.routing.stats import affinity, balance, domains, load, locality
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
SEGMENT = 16
RANKS = (8, 16, 32, 64, 128)
WINDOWS = 8


@dataclass(frozen=True)
class Summary:
    """`layers` {name: [L]}, `scalars` {name: value}; both are filled by `summarise`."""

    layers: dict[str, Floats]
    scalars: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; nan becomes null."""
        rows = {name: [plain(v) for v in values] for name, values in self.layers.items()}
        return {"scalars": {name: plain(value) for name, value in self.scalars.items()}, "layers": rows}


def summarise(trace: RoutingTrace) -> Summary:
    """Load, balance over steps, affinity, locality, sparsity, churn, drops and domains of a trace."""
    layers = _load(trace) | _time(trace) | _neighbours(trace)
    scalars = {f"{name}_mean": _mean(values) for name, values in layers.items()}
    return Summary(layers, scalars | _scalars(trace))


def _load(trace: RoutingTrace) -> dict[str, Floats]:
    counts, experts = trace.counts(), trace.header.num_experts
    rows = {
        "max_over_mean": load.max_over_mean(counts),
        "max_violation": load.max_violation(counts),
        "cv": load.variation(counts),
        "lognormal_sigma": load.lognormal_sigma(counts),
        "entropy_bits": load.entropy_bits(counts),
        "gini": load.gini(counts),
    }
    for ranks in RANKS:
        if ranks < experts:
            share = np.add.reduceat(counts, -(-np.arange(ranks) * experts // ranks), axis=1)
            rows[f"imbalance_{ranks}_ranks"] = load.max_over_mean(share)
    return rows


def _time(trace: RoutingTrace) -> dict[str, Floats]:
    rows = {"step_max_over_mean": balance.step_imbalance(trace).mean(axis=0)}
    if trace.tokens >= WINDOWS:
        rows["churn"] = balance.churn(trace, WINDOWS).mean(axis=0)
    return rows


def _neighbours(trace: RoutingTrace) -> dict[str, Floats]:
    near, chance = locality.previous_token_overlap(trace)
    cache = min(2 * trace.header.top_k, trace.header.num_experts)
    rows = {
        "previous_token_overlap": near,
        "random_token_overlap": chance,
        f"srp_{SEGMENT}": locality.best_performance(trace, SEGMENT),
        f"sch_{SEGMENT}_cache_{cache}": locality.best_hit_rate(trace, SEGMENT, cache),
        "token_sparsity": locality.token_sparsity(trace),
        f"chunk_sparsity_{SEGMENT}": locality.chunk_sparsity(trace, SEGMENT),
    }
    if trace.header.moe_layers > 1:
        rows["affinity_to_next_layer"] = np.r_[affinity.affinity(trace), np.nan]
        rows["likeliest_successor"] = np.r_[affinity.likeliest_successor(trace), np.nan]
    return rows


def _scalars(trace: RoutingTrace) -> dict[str, float]:
    header = trace.header
    home = np.arange(header.num_experts) * (int(trace.source_rank.max()) + 1) // header.num_experts
    local = locality.local_activation_rate(trace, np.tile(home, (header.moe_layers, 1)))
    scalars = {
        "tokens": float(trace.tokens),
        "requests": float(len(trace.by_request.request)),
        "steps": float(len(np.unique(trace.step))),
        "without_expert": float((trace.expert == NO_EXPERT).mean()),
        "local_activation_rate_contiguous": float(local.mean()),
    }
    if header.moe_layers > 1:
        logs = np.log(np.maximum(trace.counts(), 0.5))
        between = np.corrcoef(logs) if np.all(logs.std(axis=1) > 0) else np.full((2, 2), np.nan)
        scalars["neighbour_layer_correlation"] = float(np.diagonal(between, 1).mean())
    if len(header.domains) > 1:
        apart = ~np.eye(len(header.domains), dtype=bool)
        scalars["domain_divergence_bits"] = _mean(domains.domain_divergence(trace)[apart])
        scalars["domain_divergence_bits_shuffled"] = _mean(domains.shuffled_divergence(trace)[apart])
    return scalars


def _mean(values: Floats) -> float:
    """Mean of the finite values; nan where there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def plain(value: float) -> float | None:
    """Six digits; None for nan and infinity."""
    return round(float(value), 6) if np.isfinite(value) else None
