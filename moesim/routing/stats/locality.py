"""How much neighbouring tokens of a request share experts: what an expert cache or a fixed expert set could gain.

Segments are runs of `length` consecutive tokens of one request. Segment Routing best Performance and Segment Cache best
Hit rate are those of "Not All Models Suit Expert Offloading" (arXiv 2505.16056 v1), which slides segments by one token;
here `stride` defaults to whole segments, which gives the same means from fewer samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import BadInput
from moesim.routing.shape import NO_EXPERT
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def segments(trace: RoutingTrace, length: int, stride: int | None = None) -> Ints:
    """int64[segments, length] rows of the trace; requests shorter than `length` have none."""
    index, step = trace.by_request, stride or length
    starts = [s + np.arange(0, n - length + 1, step) for s, n in zip(index.start, index.length, strict=True)]
    first = np.concatenate([*starts, np.empty(0, np.int64)]).astype(np.int64)
    rows: Ints = index.order[first[:, None] + np.arange(length)]
    return rows


def segment_counts(trace: RoutingTrace, rows: Ints, layer: int) -> Ints:
    """rows [segments, length] -> int64[segments, E]: tokens of each segment that chose each expert."""
    experts = trace.header.num_experts
    chosen = np.minimum(trace.expert[rows.reshape(-1), layer], experts).astype(np.int64)
    cell = np.arange(len(rows)).repeat(rows.shape[1])[:, None] * (experts + 1) + chosen
    counts = np.bincount(cell.ravel(), minlength=len(rows) * (experts + 1))
    return counts.reshape(len(rows), experts + 1)[:, :experts]


def best_performance(trace: RoutingTrace, length: int, stride: int | None = None) -> Floats:
    """SRP, [L] in 0..1: the best F1 over thresholds of serving a segment by the experts that enough of its tokens use.

    An expert that c of the m tokens chose is a prediction for all m tokens, c of them right. Counts are pooled over
    segments and experts before the threshold is chosen. nan where no request is long enough.
    """
    rows = segments(trace, length, stride)
    result = np.full(trace.header.moe_layers, np.nan)
    for layer in range(trace.header.moe_layers if len(rows) else 0):
        number = np.bincount(segment_counts(trace, rows, layer).ravel(), minlength=length + 1)
        right = np.cumsum((number * np.arange(length + 1))[::-1])[::-1]
        predicted = np.cumsum(number[::-1])[::-1] * length
        result[layer] = (2 * right / np.maximum(predicted + right[0], 1)).max()
    return result


def best_hit_rate(trace: RoutingTrace, length: int, cache: int, stride: int | None = None) -> Floats:
    """SCH, [L] in 0..1: share of choices that the best `cache` experts of each segment would hold."""
    rows = segments(trace, length, stride)
    result = np.full(trace.header.moe_layers, np.nan)
    for layer in range(trace.header.moe_layers if len(rows) else 0):
        counts = segment_counts(trace, rows, layer)
        kept = np.partition(counts, -cache, axis=1)[:, -cache:] if cache < counts.shape[1] else counts
        result[layer] = kept.sum() / max(counts.sum(), 1)
    return result


def token_sparsity(trace: RoutingTrace) -> Floats:
    """[L]: share of experts that a token leaves idle, mean over tokens (TLS of BlockFFN, arXiv 2507.08771)."""
    used = (trace.expert != NO_EXPERT).sum(axis=2).mean(axis=0)
    result: Floats = 1 - used / trace.header.num_experts
    return result


def chunk_sparsity(trace: RoutingTrace, length: int) -> Floats:
    """[L]: share of experts that all `length` consecutive tokens of a request leave idle (CLS of BlockFFN)."""
    rows = segments(trace, length)
    layers = range(trace.header.moe_layers)
    used = [(segment_counts(trace, rows, n) > 0).mean() if len(rows) else np.nan for n in layers]
    return 1 - np.array(used)


def overlap(first: npt.NDArray[np.uint16], second: npt.NDArray[np.uint16]) -> Floats:
    """[N, L, k] twice -> [N, L] share of the first's experts that the second has too."""
    same = (first[:, :, :, None] == second[:, :, None, :]).any(axis=3) & (first != NO_EXPERT)
    result: Floats = same.sum(axis=2) / np.maximum((first != NO_EXPERT).sum(axis=2), 1)
    return result


def previous_token_overlap(trace: RoutingTrace, sample: int = 20_000, seed: int = 0) -> Floats:
    """[2, L]: overlap of a token with the one before it in its request, and with a random token of the trace."""
    pairs = segments(trace, 2, 1)
    if not len(pairs):
        return np.full((2, trace.header.moe_layers), np.nan)
    rng = streams.stream(seed, "stats", "overlap")
    chosen = pairs[rng.permutation(len(pairs))[:sample]]
    other = rng.integers(0, trace.tokens, len(chosen))
    here = trace.expert[chosen[:, 1]]
    near = overlap(here, trace.expert[chosen[:, 0]]).mean(axis=0)
    return np.stack([near, overlap(here, trace.expert[other]).mean(axis=0)])


def local_activation_rate(trace: RoutingTrace, held: npt.NDArray[np.bool_]) -> Floats:
    """held bool[L, E, R]: rank R holds the expert -> [L] share of choices that their token's source rank holds.

    Source: Speculative MoE (arXiv 2503.04398), which moves tokens and experts to raise it. Raises BadInput where the
    trace has more source ranks than R.
    """
    ranks = int(trace.source_rank.max()) + 1
    if ranks > held.shape[2]:
        raise BadInput(f"the trace has {ranks} source ranks, the placement {held.shape[2]}", where=trace.where)
    rates = np.empty(trace.header.moe_layers)
    for layer in range(trace.header.moe_layers):
        chosen = trace.expert[:, layer]
        valid = chosen != NO_EXPERT
        here = held[layer][np.where(valid, chosen, 0), trace.source_rank[:, None]]
        rates[layer] = (here & valid).sum() / max(valid.sum(), 1)
    return rates
