"""Compiled inner loops of the balance strategies, one layer at a time.

x float64[experts, W]: load of one replica of each expert in each window. A layer is a slot table: slot_expert
int64[slots], the slots of rank g being ptr[g] .. ptr[g + 1] - 1. load float64[ranks, W] is kept in step with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.network.compiled import inner, njit


@njit
def fill(share: Any, order: Any, ptr: Any, speed: Any) -> Any:
    """share [experts], order int[slots]: experts with their replicas, heaviest first -> slot_expert int64[slots].

    Each goes to the rank that would finish first with it, has room, and does not hold the expert if that can be helped.
    """
    ranks = len(ptr) - 1
    slot_expert, taken, load = np.full(ptr[-1], -1, np.int64), np.zeros(ranks, np.int64), np.zeros(ranks)
    for expert in order:
        best, apart, soonest = -1, False, np.inf
        for rank in range(ranks):
            if taken[rank] == ptr[rank + 1] - ptr[rank]:
                continue
            alone = not holds(slot_expert, ptr, rank, expert)
            end = (load[rank] + share[expert]) / speed[rank]
            if (alone and not apart) or (alone == apart and end < soonest):
                best, apart, soonest = rank, alone, end
        slot_expert[ptr[best] + taken[best]] = expert
        taken[best] += 1
        load[best] += share[expert]
    return slot_expert


@inner
def holds(slot_expert: Any, ptr: Any, rank: Any, expert: Any) -> Any:
    """Whether a slot of the rank holds the expert."""
    found = False
    for slot in range(ptr[rank], ptr[rank + 1]):
        found |= slot_expert[slot] == expert
    return found


@inner
def exchange(x: Any, slot_expert: Any, load: Any, a: Any, p: Any, b: Any, q: Any) -> None:
    """Slot a of rank p and slot b of rank q change experts."""
    for window in range(x.shape[1]):
        more = x[slot_expert[a], window] - x[slot_expert[b], window]
        load[p, window] -= more
        load[q, window] += more
    slot_expert[a], slot_expert[b] = slot_expert[b], slot_expert[a]


@inner
def risk(x: Any, load: Any, rank: Any, gone: Any, come: Any, z: Any) -> Any:
    """Mean over windows + z standard deviations of a rank's load, with expert `come` in place of `gone`."""
    total, square, windows = 0.0, 0.0, x.shape[1]
    for window in range(windows):
        value = load[rank, window] - x[gone, window] + x[come, window]
        total += value
        square += value * value
    mean = total / windows
    return mean + z * np.sqrt(max(square / windows - mean * mean, 0.0))


@njit
def even_out(x: Any, slot_expert: Any, ptr: Any, load: Any, speed: Any, z: Any, passes: Any) -> None:
    """Pairs of ranks exchange the two experts that leave the slower of the two best off, until no pair gains.

    A rank's load is its mean over windows + z standard deviations; one window makes it plain load.
    """
    ranks = len(ptr) - 1
    for _ in range(passes):
        better = False
        for p in range(ranks):
            for q in range(p + 1, ranks):
                better |= _even_pair(x, slot_expert, ptr, load, speed, z, p, q)
        if not better:
            break


@inner
def _even_pair(x: Any, slot_expert: Any, ptr: Any, load: Any, speed: Any, z: Any, p: Any, q: Any) -> Any:
    now = max(risk(x, load, p, 0, 0, z) / speed[p], risk(x, load, q, 0, 0, z) / speed[q])
    best, first, second = now * (1 - 1e-12), -1, -1
    for a in range(ptr[p], ptr[p + 1]):
        for b in range(ptr[q], ptr[q + 1]):
            mine, other = slot_expert[a], slot_expert[b]
            there = risk(x, load, p, mine, other, z) / speed[p]
            if there >= best:
                continue
            slower = max(there, risk(x, load, q, other, mine, z) / speed[q])
            if slower < best and not holds(slot_expert, ptr, p, other) and not holds(slot_expert, ptr, q, mine):
                best, first, second = slower, a, b
    if first >= 0:
        exchange(x, slot_expert, load, first, p, second, q)
    return first >= 0


@njit
def lower_peaks(
    x: Any, slot_expert: Any, ptr: Any, load: Any, total: Any, cap: Any, pace: Any, passes: Any
) -> None:  # fmt: skip
    """Pairs of ranks exchange the two experts that lower the sum over windows of the slowest rank most.

    pace [ranks]: time of one unit of load. total [experts]: load of a replica over all windows, of which no rank may
    take more time than `cap` if it did not before.
    """
    ranks, windows = len(ptr) - 1, x.shape[1]
    others, sums = np.empty(windows), np.zeros(ranks)
    for rank in range(ranks):
        for slot in range(ptr[rank], ptr[rank + 1]):
            sums[rank] += total[slot_expert[slot]]
    for _ in range(passes):
        better = False
        for p in range(ranks):
            for q in range(p + 1, ranks):
                peaks_without(load, pace, p, q, others)
                better |= _lower_pair(x, slot_expert, ptr, load, total, cap, pace, sums, others, p, q)
        if not better:
            break


@inner
def peaks_without(load: Any, pace: Any, p: Any, q: Any, peaks: Any) -> None:
    """peaks [W]: time of the slowest rank but p and q."""
    peaks[:] = 0.0
    for rank in range(load.shape[0]):
        if rank not in (p, q):
            for window in range(len(peaks)):
                peaks[window] = max(peaks[window], load[rank, window] * pace[rank])


@inner
def _lower_pair(
    x: Any,
    slot_expert: Any,
    ptr: Any,
    load: Any,
    total: Any,
    cap: Any,
    pace: Any,
    sums: Any,
    others: Any,
    p: Any,
    q: Any,
) -> Any:
    now = sum_of_peaks(x, load, pace, others, p, q, 0, 0, np.inf)
    limit = max(cap, max(sums[p] * pace[p], sums[q] * pace[q]))
    best, first, second = now * (1 - 1e-7), -1, -1
    for a in range(ptr[p], ptr[p + 1]):
        for b in range(ptr[q], ptr[q + 1]):
            mine, other = slot_expert[a], slot_expert[b]
            more = total[other] - total[mine]
            if max((sums[p] + more) * pace[p], (sums[q] - more) * pace[q]) > limit:
                continue
            value = sum_of_peaks(x, load, pace, others, p, q, mine, other, best)
            if value < best and not holds(slot_expert, ptr, p, other) and not holds(slot_expert, ptr, q, mine):
                best, first, second = value, a, b
    if first >= 0:
        more = total[slot_expert[second]] - total[slot_expert[first]]
        sums[p] += more
        sums[q] -= more
        exchange(x, slot_expert, load, first, p, second, q)
    return first >= 0


@inner
def sum_of_peaks(x: Any, load: Any, pace: Any, others: Any, p: Any, q: Any, mine: Any, other: Any, stop: Any) -> Any:
    """Sum over windows of the slowest rank once expert `mine` of p and `other` of q have changed places; stops early
    once it exceeds `stop`."""
    value = 0.0
    for window in range(len(others)):
        more = x[mine, window] - x[other, window]
        value += max(others[window], max((load[p, window] - more) * pace[p], (load[q, window] + more) * pace[q]))
        if value >= stop:
            break
    return value
