"""How unevenly experts are loaded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def shares(counts: npt.ArrayLike) -> Floats:
    """[..., E] counts -> [..., E] shares with sum one; uniform where nothing was counted."""
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum(axis=-1, keepdims=True)
    result: Floats = np.where(total > 0, values / np.where(total > 0, total, 1), 1 / values.shape[-1])
    return result


def max_over_mean(counts: npt.ArrayLike) -> Floats:
    """[..., E] -> [...]: load of the hottest expert over the mean; 1 is perfect."""
    share = shares(counts)
    result: Floats = share.max(axis=-1) * share.shape[-1]
    return result


def max_violation(counts: npt.ArrayLike) -> Floats:
    """[..., E] -> [...]: MaxVio = max/mean - 1 (arXiv 2408.15664, section 4.1)."""
    return max_over_mean(counts) - 1


def variation(counts: npt.ArrayLike) -> Floats:
    """[..., E] -> [...]: standard deviation over mean."""
    share = shares(counts)
    result: Floats = share.std(axis=-1) * share.shape[-1]
    return result


def entropy_bits(counts: npt.ArrayLike) -> Floats:
    """[..., E] -> [...] bits; log2(E) is uniform."""
    share = shares(counts)
    result: Floats = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=-1)
    return result


def gini(counts: npt.ArrayLike) -> Floats:
    """[..., E] -> [...]: 0 is uniform, (E - 1)/E is one expert alone."""
    share = np.sort(shares(counts), axis=-1)
    experts = share.shape[-1]
    rank = np.arange(1, experts + 1)
    result: Floats = (share * (2 * rank - experts - 1)).sum(axis=-1) / experts
    return result


def lognormal_sigma(counts: npt.ArrayLike) -> Floats:
    """[..., E] -> [...]: standard deviation of the log shares; experts without tokens count as half a token."""
    values = np.maximum(np.asarray(counts, dtype=np.float64), 0.5)
    result: Floats = np.log(values).std(axis=-1)
    return result


def counts_by(trace: RoutingTrace, label: npt.NDArray[np.integer], labels: int) -> Counts:
    """label [N] in 0..labels-1 -> int64[labels, L, E] choices of each expert by the tokens with that label."""
    layers, experts = trace.header.moe_layers, trace.header.num_experts
    result = np.empty((labels, layers, experts), dtype=np.int64)
    first = label.astype(np.int64) * (experts + 1)
    for layer in range(layers):
        cell = np.minimum(trace.expert[:, layer], experts) + first[:, None]
        table = np.bincount(cell.ravel(), minlength=labels * (experts + 1)).reshape(labels, experts + 1)
        result[:, layer] = table[:, :experts]
    return result


def step_labels(trace: RoutingTrace) -> tuple[npt.NDArray[np.int64], int]:
    """(label int64[N], number of steps): the steps of a trace numbered from 0 in order."""
    steps, label = np.unique(trace.step, return_inverse=True)
    return label.astype(np.int64), len(steps)
