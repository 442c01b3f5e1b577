"""Compiled greedy changes of one layer that stands already: the best gain per moved expert, step by step.

counts float64[experts, W]: load of each expert in each window, in units of a fair share of the window. The objective is
the sum over windows of the slowest rank's time. Two kinds of steps: two ranks exchange an expert (two moves), or a slot
whose expert has another replica takes an expert of a slow rank instead (one move), which halves what that rank feels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import inner, njit
from moesim.placement.search.kernels import exchange, holds, peaks_without, rank_peaks, sum_of_peaks

LEAST = 1e-4  # gain per window that is worth a step


@njit
def improve(counts: Any, replicas: Any, slot_expert: Any, ptr: Any, pace: Any, steps: Any) -> Any:
    """-> tables int64[n + 1, slots], value float64[n + 1], moves int64[n + 1]: the layer after each step.

    replicas int64[experts] and slot_expert int64[slots] change in place; slots of rank g: ptr[g] .. ptr[g + 1] - 1.
    """
    ranks, windows = len(ptr) - 1, counts.shape[1]
    owner = np.empty(ptr[-1], np.int64)
    for rank in range(ranks):
        owner[ptr[rank] : ptr[rank + 1]] = rank
    tables = np.empty((steps + 1, len(slot_expert)), np.int64)
    value, moves = np.empty(steps + 1), np.zeros(steps + 1, np.int64)
    share, load = np.empty_like(counts), np.empty((ranks, windows))
    done = 0
    while True:
        _spread(counts, replicas, slot_expert, owner, share, load)
        tables[done], value[done] = slot_expert, _peak_sum(load, pace)
        if done == steps:
            break
        least = value[done] - LEAST * windows
        swapped, a, b = _best_exchange(share, slot_expert, ptr, owner, load, pace, value[done])
        taken, slot, expert = _best_takeover(counts, share, replicas, slot_expert, ptr, owner, load, pace)
        if min(swapped, taken) > least:
            break
        by_exchange = (value[done] - swapped) / 2 > value[done] - taken
        if by_exchange:
            exchange(share, slot_expert, load, a, owner[a], b, owner[b])
        else:
            replicas[slot_expert[slot]] -= 1
            replicas[expert] += 1
            slot_expert[slot] = expert
        done += 1
        moves[done] = moves[done - 1] + (2 if by_exchange else 1)
    return tables[: done + 1], value[: done + 1], moves[: done + 1]


@njit
def _spread(counts: Any, replicas: Any, slot_expert: Any, owner: Any, share: Any, load: Any) -> None:
    """share [experts, W] of one replica and load [ranks, W] from scratch."""
    load[:] = 0.0
    for expert in range(len(replicas)):
        share[expert] = counts[expert] / replicas[expert]
    for slot in range(len(owner)):
        load[owner[slot]] += share[slot_expert[slot]]


@inner
def _peak_sum(load: Any, pace: Any) -> Any:
    total = 0.0
    for window in range(load.shape[1]):
        peak = 0.0
        for rank in range(load.shape[0]):
            peak = max(peak, load[rank, window] * pace[rank])
        total += peak
    return total


@njit
def _slowest(load: Any, pace: Any) -> Any:
    """bool[ranks]: slowest in some window."""
    slow = np.zeros(load.shape[0], np.bool_)
    for window in range(load.shape[1]):
        slow[np.argmax(load[:, window] * pace)] = True
    return slow


@njit
def _best_exchange(share: Any, slot_expert: Any, ptr: Any, owner: Any, load: Any, pace: Any, now: Any) -> Any:
    """(value, slot, slot) of the best exchange between a rank that is slowest in some window and another one."""
    best, first, second = now, 0, 0
    others, slow, tops = np.empty(load.shape[1]), _slowest(load, pace), np.empty((3, load.shape[1]), np.int64)
    rank_peaks(load, pace, tops)
    for p in range(len(pace)):
        for q in range(len(pace)):
            if not slow[p] or q == p:
                continue
            peaks_without(load, pace, tops, p, q, others)
            for a in range(ptr[p], ptr[p + 1]):
                for b in range(ptr[q], ptr[q + 1]):
                    mine, other = slot_expert[a], slot_expert[b]
                    value = sum_of_peaks(share, load, pace, others, p, q, mine, other, best)
                    if value < best and not holds(slot_expert, ptr, p, other) and not holds(slot_expert, ptr, q, mine):
                        best, first, second = value, a, b
    return best, first, second


@njit
def _best_takeover(
    counts: Any, share: Any, replicas: Any, slot_expert: Any, ptr: Any, owner: Any, load: Any, pace: Any
) -> Any:
    """(value, slot, expert): the best expert of a slowest rank to put where another expert has a replica too many."""
    best, at, what = np.inf, 0, 0
    slow, tried, after = _slowest(load, pace), np.zeros(len(replicas), np.bool_), np.empty_like(load)
    for rank in range(len(pace)):
        for mine in range(ptr[rank], ptr[rank + 1]):
            expert = slot_expert[mine]
            if not slow[rank] or tried[expert]:
                continue
            tried[expert] = True
            for slot in range(len(owner)):
                gone = slot_expert[slot]
                if replicas[gone] < 2 or gone == expert or holds(slot_expert, ptr, owner[slot], expert):
                    continue
                after[:] = load
                after[owner[slot]] += counts[expert] / (replicas[expert] + 1) - share[gone]
                _reshare(after, slot_expert, owner, expert, counts[expert] / (replicas[expert] + 1) - share[expert], -1)
                _reshare(after, slot_expert, owner, gone, counts[gone] / (replicas[gone] - 1) - share[gone], slot)
                value = _peak_sum(after, pace)
                if value < best:
                    best, at, what = value, slot, expert
    return best, at, what


@njit
def _reshare(load: Any, slot_expert: Any, owner: Any, expert: Any, more: Any, but: Any) -> None:
    """Every slot of the expert but one carries `more` [W]."""
    for slot in range(len(owner)):
        if slot_expert[slot] == expert and slot != but:
            load[owner[slot]] += more
