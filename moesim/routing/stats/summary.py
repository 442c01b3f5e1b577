"""Everything that `moesim trace stats` says about a trace, as one record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import NO_EXPERT
from moesim.routing.stats import affinity, balance, domains, load, locality
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
SEGMENT = 16
RANKS = (8, 16, 32, 64, 128)
WINDOWS = 8
COUNTED = ("tokens", "requests", "steps")


@dataclass(frozen=True)
class Summary:
    """`layers` {name: [L]}, `scalars` {name: value}, `lists` {name: [n]} of other things; all filled by `summarise`."""

    layers: dict[str, Floats]
    scalars: dict[str, float]
    lists: dict[str, Floats] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """metrics {name: value and unit} and breakdown {name: list}; nan becomes null."""
        return {
            "metrics": {name: {"value": plain(value), "unit": unit_of(name)} for name, value in self.scalars.items()},
            "breakdown": {name: [plain(v) for v in row] for name, row in (self.layers | self.lists).items()},
        }


def summarise(trace: RoutingTrace, segment: int = SEGMENT, cache: int | None = None) -> Summary:
    """Load, balance over steps, affinity, locality, sparsity, churn, drops and domains of a trace. segment: tokens that
    locality is asked of; cache: experts that a layer caches for them, twice top-k by default. Raises BadInput where
    that is more than there are.
    """
    experts = trace.header.num_experts
    if cache is not None and cache > experts:
        raise BadInput(f"a cache of {cache} of {experts} experts", where=trace.where, way_out=f"{experts} at most")
    attribution, owned = _owners(trace)
    near = _neighbours(trace, segment, cache or min(2 * trace.header.top_k, experts))
    layers = _load(trace.counts()) | _time(trace) | near | attribution
    return Summary(layers, _means(layers) | _scalars(trace), _drops(trace) | owned)


def summarise_loads(record: LoadRecord) -> Summary:
    """What counts alone can say: load in total and step by step."""
    layers = _load(record.counts.sum(axis=0))
    layers["step_max_over_mean"] = load.max_over_mean(record.counts).mean(axis=0)
    return Summary(layers, _means(layers) | {"steps": float(len(record.counts))})


def _means(layers: dict[str, Floats]) -> dict[str, float]:
    return {f"{name}_mean": _mean(values) for name, values in layers.items()}


def _load(counts: npt.NDArray[np.int64]) -> dict[str, Floats]:
    experts = counts.shape[1]
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


def _neighbours(trace: RoutingTrace, segment: int, cache: int) -> dict[str, Floats]:
    near, chance = locality.previous_token_overlap(trace)
    rows = {
        "previous_token_overlap": near,
        "random_token_overlap": chance,
        f"srp_{segment}": locality.best_performance(trace, segment),
        f"sch_{segment}_cache_{cache}": locality.best_hit_rate(trace, segment, cache),
        "token_sparsity": locality.token_sparsity(trace),
        f"chunk_sparsity_{segment}": locality.chunk_sparsity(trace, segment),
        "likeliest_partner": affinity.likeliest_partner(trace),
    }
    if trace.header.moe_layers > 1:
        rows["affinity_to_next_layer"] = np.r_[affinity.affinity(trace), np.nan]
        rows["likeliest_successor"] = np.r_[affinity.likeliest_successor(trace), np.nan]
    return rows


def _owners(trace: RoutingTrace) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """How much more domains use their own expert than the others do, mean over domains; and which expert that is."""
    names = trace.header.domains
    if len(names) < 2:
        return {}, {}
    owner, lead = domains.owners(trace)
    named = {f"owned_expert.{name}": owner[number].astype(np.float64) for number, name in enumerate(names)}
    return {"attribution": np.asarray(np.nanmean(lead, axis=0))}, named


def _scalars(trace: RoutingTrace) -> dict[str, float]:
    header = trace.header
    ranks = int(trace.source_rank.max()) + 1
    contiguous = np.arange(header.num_experts)[:, None] * ranks // header.num_experts == np.arange(ranks)
    local = locality.local_activation_rate(trace, np.tile(contiguous, (header.moe_layers, 1, 1)))
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


def _drops(trace: RoutingTrace) -> dict[str, Floats]:
    """By relative position in the request: choices that were dropped, and those that a capacity of 1 would drop."""
    return {
        "drop_by_position": balance.drop_by_position(trace.expert == NO_EXPERT, trace.by_request),
        "capacity_1_drop_by_position": balance.drop_by_position(balance.capacity_drops(trace, 1.0), trace.by_request),
    }


def unit_of(name: str) -> str:
    """The unit of a metric of a trace, by its name: most are ratios."""
    return "bits" if "_bits" in name else next((what for what in COUNTED if name.endswith(what)), "1")


def _mean(values: Floats) -> float:
    """Mean of the finite values; nan where there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def plain(value: float) -> float | None:
    """Six digits; None for nan and infinity."""
    return round(float(value), 6) if np.isfinite(value) else None
