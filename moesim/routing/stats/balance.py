"""Balance over time: a trace can be even in total and uneven in every step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from moesim.routing.shape import NO_EXPERT
from moesim.routing.stats.load import max_over_mean, step_labels
from moesim.routing.trace import RequestIndex, RoutingTrace

Floats = npt.NDArray[np.float64]


def step_imbalance(trace: RoutingTrace, ranks: int | None = None) -> Floats:
    """[S, L]: max over mean of the experts' load in each step; with `ranks`, of ranks of contiguous experts."""
    label, steps = step_labels(trace)
    experts = trace.header.num_experts
    group = np.arange(experts + 1) if ranks is None else np.r_[np.arange(experts) * ranks // experts, ranks]
    width = int(group[-1]) + 1
    result = np.empty((steps, trace.header.moe_layers))
    for layer in range(trace.header.moe_layers):
        cell = group[np.minimum(trace.expert[:, layer], experts)] + label[:, None] * width
        table = np.bincount(cell.ravel(), minlength=steps * width).reshape(steps, width)
        result[:, layer] = max_over_mean(table[:, :-1])
    return result


def churn(trace: RoutingTrace, windows: int, hottest: int | None = None) -> Floats:
    """[windows - 1, L]: share of the hottest experts (default: an eighth) that leave the set from window to window.

    Windows are equal numbers of tokens in the order of the trace.
    """
    edges = np.linspace(0, trace.tokens, windows + 1).astype(int)
    number = hottest or max(trace.header.num_experts // 8, 1)
    tables = [trace.counts(int(a), int(b)) for a, b in pairwise(edges)]
    hot = [np.argsort(-table, axis=1, kind="stable")[:, :number] for table in tables]
    left = [(a[:, :, None] != b[:, None, :]).all(axis=2).mean(axis=1) for a, b in pairwise(hot)]
    return np.stack(left) if left else np.empty((0, trace.header.moe_layers))


def drop_by_position(dropped: npt.NDArray[np.bool_], requests: RequestIndex, bins: int = 8) -> Floats:
    """bool[N, L, k] -> [bins]: share of choices dropped by relative position in the request; nan for an empty bin."""
    place = np.empty(len(dropped), dtype=np.int64)
    within = np.arange(len(dropped)) - np.repeat(requests.start, requests.length)
    place[requests.order] = within * bins // np.repeat(requests.length, requests.length)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=dropped.mean(axis=(1, 2)), minlength=bins)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def capacity_drops(trace: RoutingTrace, factor: float) -> npt.NDArray[np.bool_]:
    """bool[N, L, k]: choices beyond an expert's capacity, ceil(factor x tokens of the step x k / experts).

    Tokens take their places in the order of the trace within a step, all first choices before all second ones, as in
    GShard (arXiv 2006.16668, algorithm 1).
    """
    label, steps = step_labels(trace)
    experts, k = trace.header.num_experts, trace.header.top_k
    capacity = np.ceil(factor * np.bincount(label, minlength=steps) * k / experts)
    dropped = np.zeros(trace.expert.shape, dtype=bool)
    for layer in range(trace.header.moe_layers):
        chosen = trace.expert[:, layer].T.reshape(-1).astype(np.int64)  # first choices of all tokens, then second ones
        cell = np.tile(label, k) * (NO_EXPERT + 1) + chosen
        order = np.argsort(cell, kind="stable")
        begins = np.r_[0, np.flatnonzero(np.diff(cell[order])) + 1]
        place = np.empty(len(cell), dtype=np.int64)
        place[order] = np.arange(len(cell)) - np.repeat(begins, np.diff(np.r_[begins, len(cell)]))
        late = (place >= capacity[np.tile(label, k)]) & (chosen != NO_EXPERT)
        dropped[:, layer] = late.reshape(k, -1).T
    return dropped
