"""Solving for the water levels: repair of what changed, lowest level first, and plain progressive filling."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import inlined, inner, njit
from moesim.network.fluid_state import (
    CAPACITY,
    COUNT,
    DIRTY,
    DIRTY_LINKS,
    FORCED,
    FRESH,
    FRESH_FLOWS,
    HOPS,
    IS_DIRTY,
    LINK_HEAP,
    LOAD,
    NEW,
    NEXT,
    OWN,
    RESOLVE,
    SERVED,
    STALE,
    START,
    SYNCED,
    TOP,
    join_link,
    leave_link,
    mark_dirty,
    pop,
    push,
    synced,
)  # fmt: skip

EPSILON = 1e-12  # relative change below which a level or rate counts as unchanged
FULL = 1.0 - 1e-9  # share of its capacity from which a link without a level is looked at
LARGE_CHANGE = 0.5  # share of dirty links above which filling anew is cheaper than repair (measured at 64 GPUs)
PATIENCE = 16  # repairs per link after which filling anew is cheaper


@njit
def settle(state: Any, now: float) -> None:
    """Bring levels up to date, unless a window lets that wait; then find out when the next flow ends."""
    changed = state.counter[DIRTY] + state.counter[FRESH] > 0
    if changed and (state.counter[FORCED] == 1 or now >= state.clock[RESOLVE]):
        state.counter[FORCED] = 0
        for index in range(state.counter[FRESH]):
            _seat(state, state.lists[FRESH_FLOWS, index], now)
        state.counter[FRESH] = 0
        if state.counter[DIRTY] > LARGE_CHANGE * state.due.shape[0] or not _repair(state, now):
            _fill(state, now)
        refresh(state)


@inner
def refresh(state: Any) -> None:
    """When the next flow of each link ends, and the first of all."""
    first = np.inf
    for link in range(state.due.shape[0]):
        if state.tally[link, STALE] > 0:
            _reckon(state, link)
        if state.due[link] < first:
            first = state.due[link]
    state.clock[NEXT] = first


@inner
def _reckon(state: Any, link: int) -> None:
    if state.tally[link, STALE] == 2:
        start = state.tally[link, START]
        top = _least(state.goal, start, start + state.tally[link, OWN])
        state.link[link, TOP] = top
    state.tally[link, STALE] = 0
    level, due = state.level[link], np.inf
    if 0.0 < level < np.inf:
        due = state.link[link, SYNCED] + (state.link[link, TOP] - state.link[link, SERVED]) / level
    state.due[link] = due


@inner
def _least(values: Any, first: int, last: int) -> float:
    """The least of values[first:last], inf of none; four at a time, so that none waits for the one before."""
    one, two, three, four = np.inf, np.inf, np.inf, np.inf
    for at in range(first, last - 3, 4):
        one, two = min(one, values[at]), min(two, values[at + 1])
        three, four = min(three, values[at + 2]), min(four, values[at + 3])
    for at in range(max(last - (last - first) % 4, first), last):
        one = min(one, values[at])
    return min(min(one, two), min(three, four))


@inner
def _repair(state: Any, now: float) -> bool:
    """Look at dirty links, lowest first, until none is left; False where that takes longer than filling anew.

    No later repair can change what lies below it. A link's place in that order is the one that it had when it became
    dirty: only how many repairs there are depends on it.
    """
    heap, size = state.lists[LINK_HEAP], 0
    for _ in range(PATIENCE * state.due.shape[0]):
        for index in range(state.counter[DIRTY]):
            link = state.lists[DIRTY_LINKS, index]
            state.key[link] = _new_level(state, link)
            push(heap, state.key, size, link)
            size += 1
        state.counter[DIRTY] = 0
        if size == 0:
            return True
        link = pop(heap, state.key, size)
        size -= 1
        state.tally[link, IS_DIRTY] = 0
        _relevel(state, link, now)
    return False


@inner
def _seat(state: Any, flow: int, now: float) -> None:
    """A new flow begins at the lowest level on its path; where there is none the link that has least for it finds one,
    and that brings its load to the others.
    """
    link = _lowest_on_path(state, flow)
    if state.level[link] < np.inf:
        join_link(state, flow, link, state.mark[flow], now)
        _add_load(state, flow, -1, state.level[link])
        return
    least = np.inf
    for hop in range(state.counter[HOPS]):
        other = state.path[flow, hop]
        if other >= 0 and state.link[other, CAPACITY] / state.tally[other, COUNT] < least:
            link, least = other, state.link[other, CAPACITY] / state.tally[other, COUNT]
    mark_dirty(state, link)


@inner
def _lowest_on_path(state: Any, flow: int) -> Any:
    """The link of the lowest level on the flow's path."""
    best = state.path[flow, 0]
    for hop in range(1, state.counter[HOPS]):
        link = state.path[flow, hop]
        if state.level[link] < state.level[best]:
            best = link
    return best


@inner
def _new_level(state: Any, link: int) -> Any:
    """About which level a dirty link will have: the old one, or a lower one where it has too much load."""
    level, over = state.level[link], state.link[link, LOAD] - state.link[link, CAPACITY]
    if level == np.inf:
        return state.link[link, CAPACITY] / max(state.tally[link, COUNT], 1)
    return level - max(over, 0.0) / max(state.tally[link, OWN], 1)


@inner
def _relevel(state: Any, link: int, now: float) -> None:
    """Give the link the level that makes it exactly full, and its flows their rates."""
    old, capacity = state.level[link], state.link[link, CAPACITY]
    own, count = state.tally[link, OWN], state.tally[link, COUNT]
    synced(state, link, now)
    state.level[link] = np.inf  # so that the least level on a path is the one elsewhere
    others = _find_bounds(state, link, own, count)
    if own > 0 and capacity - others >= own * old:
        mine = _find_bounds(state, link, 0, own)
        new = np.inf
        if mine + others > capacity * (1 + EPSILON):
            new = _waterline(state.bound, own, 0, capacity - others, old)
        if not new - old <= EPSILON * old:
            _rise(state, link, old, new, now)
            state.link[link, LOAD] = min(mine + others, capacity)
            old = new
    elif own > 0 or others > capacity * (1 + EPSILON):
        start = old if own > 0 else capacity / count
        new = _waterline(state.bound, count - own, own, capacity, start)
        if not old - new <= EPSILON * new:
            _fall(state, link, old, new, now)
            state.link[link, LOAD] = capacity
            old = new
    elif count > 0 and others >= capacity * (1 - EPSILON):  # what others allow its flows fills it to the byte
        if old == np.inf:
            state.link[link, SERVED] = 0.0
        state.link[link, LOAD], old = others, _most(state.bound, count)
    else:
        state.link[link, LOAD], old = others, np.inf
    state.level[link] = old
    state.tally[link, STALE] = max(state.tally[link, STALE], 1)


@inner
def _find_bounds(state: Any, link: int, first: int, last: int) -> float:
    """state.bound: the least levels elsewhere of the link's flows first:last -> their sum."""
    start, hops = state.tally[link, START] + first, state.counter[HOPS]
    path, level, pool, bound = state.path, state.level, state.pool, state.bound
    if path.shape[1] <= 2:
        for index in range(last - first):
            bound[index] = level[state.other[start + index]]
        return _total(bound, last - first)
    for index in range(last - first):
        flow = pool[start + index]
        least = level[path[flow, 0]]
        for hop in range(1, hops):
            least = min(least, level[path[flow, hop]])
        bound[index] = least
    return _total(bound, last - first)


@inner
def _total(values: Any, count: int) -> float:
    """The sum of values[:count]; four at a time, so that none waits for the one before."""
    one, two, three, four = 0.0, 0.0, 0.0, 0.0
    for at in range(0, count - 3, 4):
        one, two = one + values[at], two + values[at + 1]
        three, four = three + values[at + 2], four + values[at + 3]
    for at in range(count - count % 4, count):
        one += values[at]
    return (one + two) + (three + four)


@inner
def _most(values: Any, count: int) -> float:
    """The largest of values[:count], all of them at least 0."""
    most = 0.0
    for at in range(count):
        most = max(most, values[at])
    return most


@inner
def _waterline(bound: Any, count: int, free: int, capacity: float, level: float) -> float:
    """The level at which free x level + sum over bound[:count] of min(level, bound) = capacity; Newton from `level`.

    The sum is concave, so only the first step may go down, and a few rounds reach the end exactly.
    """
    limited_before, rounds = -1, 0
    while True:
        limited, below = 0, 0.0
        for index in range(count):
            low = bound[index] <= level
            below += bound[index] if low else 0.0
            limited += low
        over = free + count - limited
        if limited == limited_before or over == 0 or (limited < limited_before and rounds > 1):
            return level
        limited_before, rounds = limited, rounds + 1
        level = (capacity - below) / over


@inner
def _rise(state: Any, link: int, old: float, new: float, now: float) -> None:
    """The link's own flows get more, or have another bottleneck now."""
    start = state.tally[link, START]
    for index in range(state.tally[link, OWN] - 1, -1, -1):
        flow, other, bound = state.pool[start + index], state.other[start + index], state.bound[index]
        if bound < new:
            left = leave_link(state, flow, now)
            join_link(state, flow, _lowest_on_path(state, flow), left, now)
        rate = min(bound, new)
        if rate - old > EPSILON * old:
            _add_elsewhere(state, flow, other, link, rate - old)


@inner
def _fall(state: Any, link: int, old: float, new: float, now: float) -> None:
    """The link's own flows get less, and others that had more than that become its own."""
    if old == np.inf:
        state.link[link, SERVED] = 0.0
    start, own = state.tally[link, START], state.tally[link, OWN]
    for at in range(start, start + own):
        _add_elsewhere(state, state.pool[at], state.other[at], link, new - old)
    for index in range(state.tally[link, COUNT] - own):
        if state.bound[index] > new:
            flow, other = state.pool[start + own + index], state.other[start + own + index]
            before = state.bound[index] if state.bottleneck[flow] >= 0 else 0.0
            join_link(state, flow, link, leave_link(state, flow, now), now)
            if abs(new - before) > EPSILON * before:
                _add_elsewhere(state, flow, other, link, new - before)


@inlined
def _add_elsewhere(state: Any, flow: int, other: int, but: int, change: float) -> None:
    """The flow brings more or less to the links on its path but one; `other` is what the pool says of it."""
    if state.path.shape[1] > 2:
        _add_load(state, flow, but, change)
    elif other < state.due.shape[0]:
        _add_to(state, other, change)


@inner
def _add_load(state: Any, flow: int, but: int, change: float) -> None:
    """The flow brings more or less to the links on its path."""
    for hop in range(state.path.shape[1]):
        link = state.path[flow, hop]
        if link < 0:
            break
        if link != but:
            _add_to(state, link, change)


@inlined
def _add_to(state: Any, link: int, change: float) -> None:
    state.link[link, LOAD] += change
    if state.level[link] < np.inf or state.link[link, LOAD] > FULL * state.link[link, CAPACITY]:
        mark_dirty(state, link)


@inner
def _fill(state: Any, now: float) -> None:
    """Progressive filling: the link with the least share per flow is full first; its flows are fixed, and so on.

    While it runs, due holds each link's share, LOAD what its fixed flows take, bound how many are not fixed.
    """
    size, keys, heap = 0, state.due, state.lists[LINK_HEAP]
    _forget(state, now)
    for link in range(state.due.shape[0]):
        if state.tally[link, COUNT] > 0:
            keys[link] = state.link[link, CAPACITY] / state.tally[link, COUNT]
            push(heap, keys, size, link)
            size += 1
    while size > 0:
        link = pop(heap, keys, size)
        size -= 1
        unfixed = state.bound[link]
        if unfixed < 0.5:
            continue
        share = max(state.link[link, CAPACITY] - state.link[link, LOAD], 0.0) / unfixed
        if share > keys[link] * (1 + EPSILON):
            keys[link] = share
            push(heap, keys, size, link)
            size += 1
            continue
        _fix_flows(state, link, share)


@inner
def _forget(state: Any, now: float) -> None:
    """All flows NEW, with the bytes they have left; no levels; bound[link]: flows that have no rate yet."""
    for link in range(state.due.shape[0]):
        synced(state, link, now)
    for link in range(state.due.shape[0]):
        start = state.tally[link, START]
        for at in range(start, start + state.tally[link, COUNT]):
            flow = state.pool[at]
            bottleneck = state.bottleneck[flow]
            if bottleneck >= 0:
                state.mark[flow] = max(state.mark[flow] - state.link[bottleneck, SERVED], 0.0)
                state.bottleneck[flow] = NEW
    for link in range(state.due.shape[0]):
        state.level[link], state.bound[link] = np.inf, state.tally[link, COUNT]
        state.link[link, LOAD], state.link[link, SERVED], state.link[link, TOP] = 0.0, 0.0, np.inf
        state.tally[link, IS_DIRTY], state.tally[link, STALE], state.tally[link, OWN] = 0, 1, 0
    state.counter[DIRTY] = 0


@inner
def _fix_flows(state: Any, link: int, share: float) -> None:
    """The link is full at `share`: its flows that have no rate yet get that."""
    state.level[link] = share
    start = state.tally[link, START]
    for at in range(start, start + state.tally[link, COUNT]):
        flow = state.pool[at]
        if state.bottleneck[flow] != NEW:
            continue
        join_link(state, flow, link, state.mark[flow], state.link[link, SYNCED])
        for hop in range(state.path.shape[1]):
            other = state.path[flow, hop]
            if other < 0:
                break
            state.link[other, LOAD] += share
            state.bound[other] -= 1.0
