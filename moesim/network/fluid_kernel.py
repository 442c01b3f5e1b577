"""The fluid network in time: flows end, leave, and are taken back. Compiled; see fluid.py for the mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import inner, njit
from moesim.network.fluid_solve import refresh, settle
from moesim.network.fluid_state import (
    ACTIVE,
    BEGAN,
    CAPACITY,
    DIRTY,
    ENDED_FLOWS,
    FORCED,
    FREE,
    FREE_SLOT,
    FREE_SLOTS,
    LEAVING,
    LEAVING_HEAP,
    NEXT,
    NUM_LEAVING,
    OWN,
    RATE,
    RESOLVE,
    SERVED,
    SIZE,
    START,
    SYNCED,
    detach,
    enter,
    leave_link,
    mark_dirty,
    pop,
    push,
    rate_of,
)  # fmt: skip

__all__ = ["ACTIVE", "abort", "complete", "next_due", "play", "set_capacity", "settle"]

SAME_TIME = 1e-12  # relative difference below which two ends are one instant


@njit
def next_due(state: Any) -> Any:
    """When something happens next: a flow ends, or a window is over; infinite where no flow moves."""
    due = state.clock[NEXT]
    if state.counter[NUM_LEAVING] > 0:
        due = min(due, state.mark[state.lists[LEAVING_HEAP, 0]])
    if state.counter[DIRTY] > 0:
        due = min(due, state.clock[RESOLVE])
    return due


@njit
def complete(state: Any, now: float, window: float) -> Any:
    """End every flow that is due by now -> their numbers, a view that the next call overwrites."""
    limit = now + SAME_TIME * abs(now)
    if state.clock[NEXT] <= limit:
        _open_window(state, now, window)
    count, heap = 0, state.lists[LEAVING_HEAP]
    while state.counter[NUM_LEAVING] > 0 and state.mark[heap[0]] <= limit:
        flow = pop(heap, state.mark, state.counter[NUM_LEAVING])
        state.counter[NUM_LEAVING] -= 1
        state.lists[ENDED_FLOWS, count] = flow
        count += 1
        _finish(state, flow)
    return state.lists[ENDED_FLOWS, :count]


@inner
def _open_window(state: Any, now: float, window: float) -> None:
    """Flows that end within the window leave the links now, at the ends that their present rates give them.

    The others are solved for again at the mean of those ends, so that what is given away too early and too late
    cancels. A window of 0 ends at once.
    """
    until = now + SAME_TIME * abs(now)
    if window > 0.0:
        until += window * _age_of_first(state, now)
    gone, total = 0.0, 0.0
    for link in range(state.due.shape[0]):
        if state.due[link] <= until:
            rate, moment = _let_go(state, link, until, now)
            gone, total = gone + rate, total + moment
    state.clock[RESOLVE] = now + total / gone if window > 0.0 else now
    refresh(state)


@inner
def _age_of_first(state: Any, now: float) -> float:
    """Seconds since the start of the flow that ends next."""
    link = np.argmin(state.due)
    start, youngest = state.tally[link, START], now
    first = np.inf
    for at in range(start, start + state.tally[link, OWN]):
        if state.goal[at] < first:
            first, youngest = state.goal[at], state.flow[state.pool[at], BEGAN]
    return now - youngest


@inner
def _let_go(state: Any, link: int, until: float, now: float) -> Any:
    """Flows of the link that end by `until` leave -> the sum of their rates, and of rate times time to the end."""
    gone, total = 0.0, 0.0
    level, start = state.level[link], state.tally[link, START]
    for at in range(state.tally[link, OWN] - 1, -1, -1):
        end = state.link[link, SYNCED] + (state.goal[start + at] - state.link[link, SERVED]) / level
        if end <= until:
            _leave(state, state.pool[start + at], end, level, now)
            gone, total = gone + level, total + level * (end - now)
    return gone, total


@inner
def _leave(state: Any, flow: int, end: float, rate: float, now: float) -> None:
    leave_link(state, flow, now)
    state.bottleneck[flow], state.mark[flow], state.flow[flow, RATE] = LEAVING, end, rate
    detach(state, flow, rate, now)
    push(state.lists[LEAVING_HEAP], state.mark, state.counter[NUM_LEAVING], flow)
    state.counter[NUM_LEAVING] += 1


@inner
def _finish(state: Any, flow: int) -> None:
    """All bytes are there; the slot is free."""
    for hop in range(state.path.shape[1]):
        if state.path[flow, hop] < 0:
            break
        state.carried[state.path[flow, hop]] += np.int64(state.flow[flow, SIZE])
    _free(state, flow)


@inner
def _free(state: Any, flow: int) -> None:
    state.bottleneck[flow] = FREE_SLOT
    state.lists[FREE_SLOTS, state.counter[FREE]] = flow
    state.counter[FREE] += 1
    state.counter[ACTIVE] -= 1


@njit
def set_capacity(state: Any, link: int, capacity: float) -> None:
    """The link and all its flows have to be looked at again."""
    state.link[link, CAPACITY] = capacity
    mark_dirty(state, link)
    state.counter[FORCED] = 1


@njit
def abort(state: Any, flows: Any, now: float) -> Any:
    """Take flows out -> the bytes each still had to send."""
    left = np.empty(flows.shape[0])
    for index in range(flows.shape[0]):
        flow = flows[index]
        if state.bottleneck[flow] == LEAVING:
            left[index] = max(state.mark[flow] - now, 0.0) * state.flow[flow, RATE]
            _forget_leaving(state, flow)
        else:
            rate = rate_of(state, flow)
            left[index] = leave_link(state, flow, now)
            detach(state, flow, rate, now)
        _free(state, flow)
    state.counter[FORCED] = 1
    return left


@inner
def _forget_leaving(state: Any, flow: int) -> None:
    """Take a flow out of the heap of those that leave: it ends first."""
    state.mark[flow] = -np.inf
    heap, size = state.lists[LEAVING_HEAP], state.counter[NUM_LEAVING]
    for at in range(size):
        if heap[at] == flow:
            push(heap, state.mark, at, flow)
    pop(heap, state.mark, size)
    state.counter[NUM_LEAVING] -= 1


@njit
def play(state: Any, path: Any, size: Any, begin: Any, order: Any, window: float, finish: Any) -> bool:
    """Flows in the order of their starts, to the end -> False where some never end. finish float64[F] is filled in."""
    flow_of, number = np.empty(state.mark.shape[0], np.int64), np.empty(1, np.int64)
    at, now = 0, 0.0
    while at < order.shape[0] or state.counter[ACTIVE] > 0:
        settle(state, now)
        arrival = begin[order[at]] if at < order.shape[0] else np.inf
        now = max(now, min(next_due(state), arrival))
        if now == np.inf:
            return False
        for flow in complete(state, now, window):
            finish[flow_of[flow]] = now
        while at < order.shape[0] and begin[order[at]] <= now:
            enter(state, path, size, order[at : at + 1], number, now)
            flow_of[number[0]] = order[at]
            at += 1
    return True
