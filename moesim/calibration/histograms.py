"""The rows of each expert behind a measured MoE row, generated again by the rules of aiconfigurator's collector.

The tables name a distribution and record no histogram. In words: `balanced` strides the choices evenly over the
experts; `power_law_a` draws counts from a bounded power law, scales and rounds them to tokens x topk, caps each at the
tokens and evens out the difference over the expert-parallel ranks; the busiest rank is the one that was timed. A skewed
row is the mean over five random draws, whose seeds are not known: ours have the same law, not the same values.
"""

from __future__ import annotations

import heapq
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import BadInput

Counts = npt.NDArray[np.int32]
DRAWS: Final = 5
BALANCED: Final = frozenset({"balanced", "uniform"})
_POWER: Final = "power_law_"


def histograms(tokens: int, experts: int, topk: int, ranks: int, distribution: str) -> Counts:
    """-> int32[draws, experts / ranks]: rows of each expert of the busiest of `ranks` ranks. Raises BadInput."""
    if experts % ranks:
        raise BadInput(f"{experts} experts do not divide over {ranks} ranks")
    if distribution in BALANCED:
        drawn = _balanced(tokens, experts, topk)[None]
    elif distribution.startswith(_POWER):
        exponent = float(distribution.removeprefix(_POWER))
        rng = streams.stream(0, "histogram", distribution, tokens, experts, topk)
        drawn = np.stack([_power_law(tokens, experts, topk, ranks, exponent, rng) for _ in range(DRAWS)])
    else:
        raise BadInput(f"unknown distribution {distribution!r}", way_out="balanced, uniform or power_law_EXPONENT")
    return _busiest(drawn, ranks)


def slot_histograms(
    tokens: int, experts: int, topk: int, ranks: int, distribution: str, slots: int, planned: bool
) -> Counts:  # fmt: skip
    """-> int32[draws, slots / ranks]: rows of each slot of the busiest of `ranks` ranks. Raises BadInput.

    planned: the hottest experts get the slots beyond one an expert, and slots go to ranks by load, largest first, as
    EPLB does; otherwise slots are the experts in order.
    """
    if not planned:
        return histograms(tokens, experts, topk, ranks, distribution)
    every = histograms(tokens, experts, topk, 1, distribution).astype(np.int64)
    return _busiest(np.stack([_planned(load, ranks, slots) for load in every]), ranks)


def _planned(load: npt.NDArray[np.int64], ranks: int, slots: int) -> npt.NDArray[np.int64]:
    """int64[experts] rows -> int64[slots] rows in order of rank."""
    copies = np.ones(len(load), dtype=np.int64)
    for _ in range(slots - len(load)):
        copies[np.argmax(load / copies)] += 1
    share = np.sort(np.repeat(-(-load // copies), copies))[::-1]
    held: list[list[int]] = [[] for _ in range(ranks)]
    free = [(0, rank) for rank in range(ranks)]
    for rows in share.tolist():
        total, rank = heapq.heappop(free)
        held[rank].append(rows)
        if len(held[rank]) < slots // ranks:
            heapq.heappush(free, (total + rows, rank))
    return np.array(held, dtype=np.int64).ravel()


def _busiest(drawn: npt.NDArray[np.int64], ranks: int) -> Counts:
    by_rank = drawn.reshape(len(drawn), ranks, -1)
    chosen = by_rank.sum(axis=2).argmax(axis=1)
    return np.asarray(by_rank[np.arange(len(drawn)), chosen], dtype=np.int32)


def _balanced(tokens: int, experts: int, topk: int) -> npt.NDArray[np.int64]:
    """Choice j of token i is expert i + j stride; fewer tokens than the stride are spread evenly over it."""
    stride = -(-experts // topk)
    first = np.arange(tokens) if tokens >= stride else np.arange(tokens) * stride // tokens
    counts = np.bincount(first % experts, minlength=experts)
    return np.asarray(np.sum([np.roll(counts, choice * stride) for choice in range(topk)], axis=0))


def _power_law(
    tokens: int, experts: int, topk: int, ranks: int, exponent: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:  # fmt: skip
    low, high = (1.0, 0.8 * tokens) if tokens * topk > experts else (0.01, 2.0)
    a = 1.0 - exponent
    values = (low**a + rng.random(experts) * (high**a - low**a)) ** (1 / a)
    total = tokens * topk
    counts = np.minimum(np.rint(values / values.sum() * total).astype(np.int64), tokens)
    return _evened(counts, total, tokens, ranks)


def _evened(counts: npt.NDArray[np.int64], total: int, cap: int, ranks: int) -> npt.NDArray[np.int64]:
    """Hand out what is missing one by one over the ranks, each rank's lowest expert first; or take back its highest."""
    grid = counts.reshape(ranks, -1).copy()
    while missing := total - int(grid.sum()):
        sign = 1 if missing > 0 else -1
        room = np.where(sign > 0, grid < cap, grid > 0)
        ranked = np.argsort(np.where(room, sign * grid, np.iinfo(np.int64).max), axis=1, kind="stable")
        order = ranked.T.ravel() + np.tile(np.arange(ranks), grid.shape[1]) * grid.shape[1]
        order = order[room.ravel()[order]][: abs(missing)]
        grid.ravel()[order] += sign
    return grid.ravel()
