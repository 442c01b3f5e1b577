"""Compiled inner loops of the balance strategies, one layer at a time.

x float64[items, W]: load of each item in each window. An item is a replica of an expert, `of[item]`. A layer is a table
slot_item int64[slots], the slots of rank g being ptr[g] .. ptr[g + 1] - 1. load float64[ranks, W] is kept in step.
What a replica carries may depend on where the others stand (`node`, `way`, see dispatch/ways.py): an exchange that
would change any share is not made.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import inner, njit
from moesim.placement.dispatch.ways import EVEN, FIRST, MODULO


@njit
def fill(share: Any, order: Any, ptr: Any, speed: Any, node: Any) -> Any:
    """share [experts], order int[slots]: experts with their replicas, heaviest first -> slot_expert int64[slots].

    Each goes to the rank that would finish first with it and has room, of those whose node does not hold the expert,
    else of those that do not hold it themselves, if that can be helped. node int64[ranks].
    """
    ranks = len(ptr) - 1
    slot_expert, taken, load = np.full(ptr[-1], -1, np.int64), np.zeros(ranks, np.int64), np.zeros(ranks)
    crowded = np.zeros(ranks, np.bool_)  # nodes that hold the expert
    for expert in order:
        crowded[:] = False
        for slot in range(ptr[-1]):
            if slot_expert[slot] == expert:
                crowded[node[np.searchsorted(ptr, slot, side="right") - 1]] = True
        best, apart, soonest = -1, -1, np.inf
        for rank in range(ranks):
            if taken[rank] == ptr[rank + 1] - ptr[rank]:
                continue
            alone = 2 - (1 if crowded[node[rank]] else 0) - (1 if holds(slot_expert, ptr, rank, expert) else 0)
            end = (load[rank] + share[expert]) / speed[rank]
            if alone > apart or (alone == apart and end < soonest):
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
def carries(slot_item: Any, of: Any, ptr: Any, rank: Any, expert: Any) -> Any:
    """Whether a slot of the rank holds a replica of the expert."""
    found = False
    for slot in range(ptr[rank], ptr[rank + 1]):
        found |= of[slot_item[slot]] == expert
    return found


@inner
def keeps_shares(slot_item: Any, of: Any, owner: Any, node: Any, way: Any, gone: Any, come: Any) -> Any:
    """Whether the expert of slot `gone` surely keeps all its shares if that replica goes to slot `come`.

    It does where it has no other replica; where no other replica's turn comes between the two slots (MODULO, FIRST in
    one node); and where it leaves a node of its own for an equal node that has none.
    """
    expert, low, high = of[slot_item[gone]], min(gone, come), max(gone, come)
    here, there = node[owner[gone]], node[owner[come]]
    others, between, beside, ahead = 0, 0, 0, 0
    for slot in range(len(owner)):
        if of[slot_item[slot]] == expert and slot != gone:
            at = node[owner[slot]]
            inside = low < slot < high
            others += 1
            beside += at == here
            ahead += at == there
            between += inside and (way == MODULO or at == here)
    if others == 0:
        return True
    if way == MODULO or (way == FIRST and here == there):
        return between == 0
    if here == there:
        return True
    equal = 0
    for rank in range(len(node)):
        equal += (node[rank] == here) - (node[rank] == there)
    return beside == 0 and ahead == 0 and equal == 0


@inner
def allowed(slot_item: Any, of: Any, ptr: Any, owner: Any, node: Any, way: Any, a: Any, p: Any, b: Any, q: Any) -> Any:
    """Whether slots a of rank p and b of rank q may change items: no rank holds an expert twice, shares stay."""
    mine, other = of[slot_item[a]], of[slot_item[b]]
    if carries(slot_item, of, ptr, p, other) or carries(slot_item, of, ptr, q, mine):
        return False
    if way == EVEN:
        return True
    return keeps_shares(slot_item, of, owner, node, way, a, b) and keeps_shares(slot_item, of, owner, node, way, b, a)


@inner
def exchange(x: Any, slot_item: Any, load: Any, a: Any, p: Any, b: Any, q: Any) -> None:
    """Slot a of rank p and slot b of rank q change items."""
    for window in range(x.shape[1]):
        more = x[slot_item[a], window] - x[slot_item[b], window]
        load[p, window] -= more
        load[q, window] += more
    slot_item[a], slot_item[b] = slot_item[b], slot_item[a]


@inner
def risk(x: Any, load: Any, rank: Any, gone: Any, come: Any, z: Any) -> Any:
    """Mean over windows + z standard deviations of a rank's load, with item `come` in place of `gone`."""
    total, square, windows = 0.0, 0.0, x.shape[1]
    for window in range(windows):
        value = load[rank, window] - x[gone, window] + x[come, window]
        total += value
        square += value * value
    mean = total / windows
    return mean + z * np.sqrt(max(square / windows - mean * mean, 0.0))


@njit
def even_out(
    x: Any, slot_item: Any, of: Any, ptr: Any, owner: Any, node: Any, way: Any, load: Any, speed: Any, z: Any,
    passes: Any,
) -> None:  # fmt: skip
    """Pairs of ranks exchange the two experts that leave the slower of the two best off, until no pair gains.

    A rank's load is its mean over windows + z standard deviations; one window makes it plain load. Two ranks that
    have not changed since they were looked at are not looked at again, unless others decide what they may exchange.
    """
    ranks = len(ptr) - 1
    looks, looked, changed = 0, np.zeros((ranks, ranks), np.int64), np.zeros(ranks, np.int64)
    for _ in range(passes):
        better = False
        for p in range(ranks):
            for q in range(p + 1, ranks):
                if way == EVEN and looked[p, q] > max(changed[p], changed[q]):
                    continue
                looks += 1
                looked[p, q] = looks
                if _even_pair(x, slot_item, of, ptr, owner, node, way, load, speed, z, p, q):
                    changed[p] = changed[q] = looks
                    better = True
        if not better:
            break


@inner
def _even_pair(
    x: Any, slot_item: Any, of: Any, ptr: Any, owner: Any, node: Any, way: Any, load: Any, speed: Any, z: Any, p: Any,
    q: Any,
) -> Any:  # fmt: skip
    now = max(risk(x, load, p, 0, 0, z) / speed[p], risk(x, load, q, 0, 0, z) / speed[q])
    best, first, second = now * (1 - 1e-12), -1, -1
    for a in range(ptr[p], ptr[p + 1]):
        for b in range(ptr[q], ptr[q + 1]):
            mine, other = slot_item[a], slot_item[b]
            there = risk(x, load, p, mine, other, z) / speed[p]
            if there >= best:
                continue
            slower = max(there, risk(x, load, q, other, mine, z) / speed[q])
            if slower < best and allowed(slot_item, of, ptr, owner, node, way, a, p, b, q):
                best, first, second = slower, a, b
    if first >= 0:
        exchange(x, slot_item, load, first, p, second, q)
    return first >= 0


@njit
def lower_peaks(
    x: Any, slot_item: Any, of: Any, ptr: Any, owner: Any, node: Any, way: Any, load: Any, total: Any, cap: Any,
    pace: Any, passes: Any,
) -> None:  # fmt: skip
    """Pairs of ranks exchange the two items that lower the sum over windows of the slowest rank most.

    pace [ranks]: time of one unit of load. total [items]: load of an item over all windows, of which no rank may take
    more time than `cap` if it did not before.
    """
    ranks, windows = len(ptr) - 1, x.shape[1]
    others, sums = np.empty(windows), np.zeros(ranks)
    for rank in range(ranks):
        for slot in range(ptr[rank], ptr[rank + 1]):
            sums[rank] += total[slot_item[slot]]
    tops = np.empty((3, windows), np.int64)
    rank_peaks(load, pace, tops)
    for _ in range(passes):
        better = False
        for p in range(ranks):
            for q in range(p + 1, ranks):
                if not leads(tops, p) and not leads(tops, q):
                    continue
                peaks_without(load, pace, tops, p, q, others)
                if _lower_pair(x, slot_item, of, ptr, owner, node, way, load, total, cap, pace, sums, others, p, q):
                    rank_peaks(load, pace, tops)
                    better = True
        if not better:
            break


@inner
def rank_peaks(load: Any, pace: Any, tops: Any) -> None:
    """tops int64[3, W]: the three slowest ranks of each window, slowest first; -1 where there are fewer."""
    tops[:] = -1
    for window in range(load.shape[1]):
        for rank in range(load.shape[0]):
            time, place = load[rank, window] * pace[rank], 3
            while place > 0:
                other = tops[place - 1, window]
                if other >= 0 and load[other, window] * pace[other] >= time:
                    break
                place -= 1
            for lower in range(2, place, -1):
                tops[lower, window] = tops[lower - 1, window]
            if place < 3:
                tops[place, window] = rank


@inner
def leads(tops: Any, rank: Any) -> Any:
    """Whether the rank is the slowest of some window: no exchange between two others lowers a peak."""
    found = False
    for window in range(tops.shape[1]):
        found |= tops[0, window] == rank
    return found


@inner
def peaks_without(load: Any, pace: Any, tops: Any, p: Any, q: Any, peaks: Any) -> None:
    """peaks [W]: time of the slowest rank but p and q."""
    for window in range(len(peaks)):
        peaks[window] = 0.0
        for place in range(3):
            rank = tops[place, window]
            if rank >= 0 and rank not in (p, q):
                peaks[window] = load[rank, window] * pace[rank]
                break


@inner
def _lower_pair(
    x: Any, slot_item: Any, of: Any, ptr: Any, owner: Any, node: Any, way: Any, load: Any, total: Any, cap: Any,
    pace: Any, sums: Any, others: Any, p: Any, q: Any,
) -> Any:  # fmt: skip
    now = sum_of_peaks(x, load, pace, others, p, q, 0, 0, np.inf)
    limit = max(cap, max(sums[p] * pace[p], sums[q] * pace[q]))
    best, first, second = now * (1 - 1e-7), -1, -1
    for a in range(ptr[p], ptr[p + 1]):
        for b in range(ptr[q], ptr[q + 1]):
            mine, other = slot_item[a], slot_item[b]
            more = total[other] - total[mine]
            if max((sums[p] + more) * pace[p], (sums[q] - more) * pace[q]) > limit:
                continue
            value = sum_of_peaks(x, load, pace, others, p, q, mine, other, best)
            if value < best and allowed(slot_item, of, ptr, owner, node, way, a, p, b, q):
                best, first, second = value, a, b
    if first >= 0:
        more = total[slot_item[second]] - total[slot_item[first]]
        sums[p] += more
        sums[q] -= more
        exchange(x, slot_item, load, first, p, second, q)
    return first >= 0


@inner
def sum_of_peaks(x: Any, load: Any, pace: Any, others: Any, p: Any, q: Any, mine: Any, other: Any, stop: Any) -> Any:
    """Sum over windows of the slowest rank once item `mine` of p and `other` of q have changed places; stops early
    once it exceeds `stop`."""
    value = 0.0
    for window in range(len(others)):
        more = x[mine, window] - x[other, window]
        value += max(others[window], max((load[p, window] - more) * pace[p], (load[q, window] + more) * pace[q]))
        if value >= stop:
            break
    return value
