"""Solving for the water levels: repair of what changed, lowest level first, and plain progressive filling."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.network.compiled import njit
from moesim.network.fluid_state import (
    CAPACITY,
    COUNT,
    DIRTY,
    DIRTY_LINKS,
    FORCED,
    FRESH,
    FRESH_FLOWS,
    IS_DIRTY,
    LINK_HEAP,
    LOAD,
    MEMBERS,
    NEW,
    NEXT,
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
    if state.counter[DIRTY] > 0 and (state.counter[FORCED] == 1 or now >= state.clock[RESOLVE]):
        state.counter[FORCED] = 0
        if state.counter[DIRTY] > LARGE_CHANGE * state.level.shape[0] or not _repair(state, now):
            _fill(state, now)
        state.counter[FRESH] = 0
        refresh(state)


@njit
def refresh(state: Any) -> None:
    """When the next flow of each link ends, and the first of all."""
    first = np.inf
    for link in range(state.due.shape[0]):
        if state.tally[link, STALE] > 0:
            _reckon(state, link)
        if state.due[link] < first:
            first = state.due[link]
    state.clock[NEXT] = first


@njit
def _reckon(state: Any, link: int) -> None:
    if state.tally[link, STALE] == 2:
        top, start = np.inf, state.tally[link, START]
        for at in range(start, start + state.tally[link, COUNT]):
            flow = state.pool[at]
            if state.bottleneck[flow] == link and state.mark[flow] < top:
                top = state.mark[flow]
        state.link[link, TOP] = top
    state.tally[link, STALE] = 0
    level, due = state.level[link], np.inf
    if 0.0 < level < np.inf:
        due = state.link[link, SYNCED] + (state.link[link, TOP] - state.link[link, SERVED]) / level
    state.due[link] = due


@njit
def _repair(state: Any, now: float) -> bool:
    """Look at dirty links until none is left; False where that takes longer than filling anew."""
    for index in range(state.counter[FRESH]):
        _seat(state, state.lists[FRESH_FLOWS, index], now)
    for _ in range(PATIENCE * state.level.shape[0]):
        if state.counter[DIRTY] == 0:
            return True
        link = _take_lowest(state)
        old, new = state.level[link], _level_of(state, link)
        if new != old and not abs(new - old) <= EPSILON * min(new, old):
            _set_level(state, link, old, new, now)
    return False


@njit
def _seat(state: Any, flow: int, now: float) -> None:
    """A new flow begins at the lowest level on its path; where there is none its links find one."""
    link = _lowest_on_path(state, flow, -1)
    if state.bottleneck[flow] == NEW and state.level[link] < np.inf:
        join_link(state, flow, link, state.mark[flow], now)
        _add_load(state, flow, -1, state.level[link])


@njit
def _lowest_on_path(state: Any, flow: int, but: int) -> Any:
    """The link of the lowest level on the flow's path, leaving one out; `but` itself where there is no other."""
    best = but
    for hop in range(state.path.shape[1]):
        link = state.path[flow, hop]
        if link < 0:
            break
        if link != but and (best == but or state.level[link] < state.level[best]):
            best = link
    return best


@njit
def _take_lowest(state: Any) -> Any:
    """Take out the dirty link whose old or new level is lowest: no later repair can change what lies below it."""
    best, least = 0, np.inf
    for index in range(state.counter[DIRTY]):
        link = state.lists[DIRTY_LINKS, index]
        over = state.link[link, LOAD] - state.link[link, CAPACITY]
        key = state.level[link]
        if key == np.inf:
            key = state.link[link, CAPACITY] / max(state.tally[link, COUNT], 1)
        elif over > 0.0:
            key -= over / max(state.tally[link, MEMBERS], 1)
        if key < least:
            best, least = index, key
    link = state.lists[DIRTY_LINKS, best]
    state.counter[DIRTY] -= 1
    state.lists[DIRTY_LINKS, best] = state.lists[DIRTY_LINKS, state.counter[DIRTY]]
    state.tally[link, IS_DIRTY] = 0
    return link


@njit
def _level_of(state: Any, link: int) -> Any:
    """The level that makes the link exactly full, given the levels elsewhere; infinite where it cannot be filled.

    sum over flows of min(level, bound) is concave in level, so Newton's steps from below reach it in a few rounds. The
    bounds of the link's flows stay in state.bound.
    """
    start, count, total = state.tally[link, START], state.tally[link, COUNT], 0.0
    for index in range(count):
        flow = state.pool[start + index]
        bottleneck = state.bottleneck[flow]
        if bottleneck == link or bottleneck < 0:
            other = _lowest_on_path(state, flow, link)
            bound = state.level[other] if other != link else np.inf
        else:
            bound = state.level[bottleneck]
        state.bound[index] = bound
        total += bound
    capacity = state.link[link, CAPACITY]
    if total <= capacity * (1 + EPSILON):
        return np.inf
    level = state.level[link] if state.level[link] < np.inf else capacity / count
    limited_before, rounds = -1, 0
    while True:
        limited, below = 0, 0.0
        for index in range(count):
            if state.bound[index] <= level:
                below += state.bound[index]
                limited += 1
        if limited == limited_before or (limited < limited_before and rounds > 1):  # only the first step may go down
            return level
        limited_before, rounds = limited, rounds + 1
        level = (capacity - below) / (count - limited) if limited < count else capacity / count


@njit
def _set_level(state: Any, link: int, old: float, new: float, now: float) -> None:
    """Give the link its level and the flows on it their rates; links where they now bring more or less get dirty."""
    synced(state, link, now)
    if old == np.inf:
        state.link[link, SERVED] = 0.0
    start, count, load = state.tally[link, START], state.tally[link, COUNT], 0.0
    for index in range(count):
        flow, bound = state.pool[start + index], state.bound[index]
        bottleneck, before = state.bottleneck[flow], bound
        if bottleneck == link or bottleneck < 0:
            before = old if bottleneck == link else 0.0
            if bound < new:
                left = leave_link(state, flow, now)
                join_link(state, flow, _lowest_on_path(state, flow, link), left, now)
            elif bottleneck < 0:
                join_link(state, flow, link, state.mark[flow], now)
        elif bound > new:
            join_link(state, flow, link, leave_link(state, flow, now), now)
        after = min(bound, new)
        load += after
        if abs(after - before) > EPSILON * before:
            _add_load(state, flow, link, after - before)
    state.level[link] = new
    state.link[link, LOAD] = load
    state.tally[link, STALE] = max(state.tally[link, STALE], 1)


@njit
def _add_load(state: Any, flow: int, but: int, change: float) -> None:
    """The flow brings more or less to the links on its path."""
    for hop in range(state.path.shape[1]):
        link = state.path[flow, hop]
        if link < 0:
            break
        if link != but:
            state.link[link, LOAD] += change
            if state.level[link] < np.inf or state.link[link, LOAD] > FULL * state.link[link, CAPACITY]:
                mark_dirty(state, link)


@njit
def _fill(state: Any, now: float) -> None:
    """Progressive filling: the link with the least share per flow is full first; its flows are fixed, and so on.

    While it runs, due holds each link's share, LOAD what its fixed flows take, bound how many are not fixed.
    """
    size, keys, heap = 0, state.due, state.lists[LINK_HEAP]
    _forget(state, now)
    for link in range(state.level.shape[0]):
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


@njit
def _forget(state: Any, now: float) -> None:
    """All flows NEW, with the bytes they have left; no levels; bound[link]: flows that have no rate yet."""
    for link in range(state.level.shape[0]):
        synced(state, link, now)
    for link in range(state.level.shape[0]):
        start = state.tally[link, START]
        for at in range(start, start + state.tally[link, COUNT]):
            flow = state.pool[at]
            bottleneck = state.bottleneck[flow]
            if bottleneck >= 0:
                state.mark[flow] = max(state.mark[flow] - state.link[bottleneck, SERVED], 0.0)
                state.bottleneck[flow] = NEW
    for link in range(state.level.shape[0]):
        state.level[link], state.bound[link] = np.inf, state.tally[link, COUNT]
        state.link[link, LOAD], state.link[link, SERVED], state.link[link, TOP] = 0.0, 0.0, np.inf
        state.tally[link, IS_DIRTY], state.tally[link, STALE], state.tally[link, MEMBERS] = 0, 1, 0
    state.counter[DIRTY] = 0


@njit
def _fix_flows(state: Any, link: int, share: float) -> None:
    """The link is full at `share`: its flows that have no rate yet get that."""
    state.level[link] = share
    start = state.tally[link, START]
    for at in range(start, start + state.tally[link, COUNT]):
        flow = state.pool[at]
        if state.bottleneck[flow] != NEW:
            continue
        state.bottleneck[flow] = link
        state.tally[link, MEMBERS] += 1
        state.link[link, TOP] = min(state.link[link, TOP], state.mark[flow])
        for hop in range(state.path.shape[1]):
            other = state.path[flow, hop]
            if other < 0:
                break
            state.link[other, LOAD] += share
            state.bound[other] -= 1.0
