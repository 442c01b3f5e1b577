"""The arrays of a fluid network, and how flows enter and leave the links they share. See fluid.py for the mathematics.

Flows that share a bottleneck have the same rate at all times, so nothing is kept per flow but the mark at which it
ends: link l serves `served` bytes to each of its own flows by the time `synced`, at `level` bytes a second, and a flow
ends when that count reaches its mark. A change of level then costs the flows of a link nothing. In the list of flows
of a link its own (those whose bottleneck it is) stand first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import inlined, inner, njit

NEW, LEAVING, FREE_SLOT = -1, -2, -3  # in place of a bottleneck
ACTIVE, NUM_LEAVING, DIRTY, FREE, FRESH, FORCED, HOPS = range(7)  # counters
NEXT, RESOLVE = range(2)  # clock: when the next flow of a link ends; before when nothing need be solved
CAPACITY, LOAD, SERVED, SYNCED, TOP, BUSY, BUSY_SINCE, SATURATED = range(8)  # link columns, floats
START, COUNT, ROOM, OWN, STALE, IS_DIRTY = range(6)  # link columns, integers
SIZE, BEGAN, RATE = range(3)  # flow columns


class State(NamedTuple):
    """L links, F flow slots. level float64[L + 1]: rate of a link's own flows, inf where it is not full; the last,
    where the -1 that pads a path points, is inf.

    due float64[L]: when the next of them ends; bottleneck int32[F]: a link, or NEW, LEAVING, FREE_SLOT;
    mark float64[F]: bytes (NEW: left to send, LEAVING: the second at which the flow ends); pool int32: the flows of
    link l stand at START:START + COUNT; other int32, beside the pool: the second link of a flow of two links, L of a
    flow of one, of no meaning where paths are longer; goal float64, beside the pool: marks of a link's own flows; place
    int32[F, hops]: where a flow stands in each of its links' lists; key float64[L]: order in which links are repaired.
    """

    level: npt.NDArray[np.float64]
    due: npt.NDArray[np.float64]
    link: npt.NDArray[np.float64]
    tally: npt.NDArray[np.int64]
    carried: npt.NDArray[np.int64]
    bottleneck: npt.NDArray[np.int32]
    mark: npt.NDArray[np.float64]
    flow: npt.NDArray[np.float64]
    path: npt.NDArray[np.int32]
    place: npt.NDArray[np.int32]
    pool: npt.NDArray[np.int32]
    other: npt.NDArray[np.int32]
    goal: npt.NDArray[np.float64]
    lists: npt.NDArray[np.int32]  # rows: dirty links, link heap, free slots, leaving flows, fresh flows, ended flows
    bound: npt.NDArray[np.float64]
    key: npt.NDArray[np.float64]
    counter: npt.NDArray[np.int64]
    clock: npt.NDArray[np.float64]


DIRTY_LINKS, LINK_HEAP, FREE_SLOTS, LEAVING_HEAP, FRESH_FLOWS, ENDED_FLOWS = range(6)


def new_state(
    capacity: npt.NDArray[np.float64], hops: int, flows: int, room: npt.NDArray[np.int64] | None = None
) -> State:
    """An empty network with place for `flows` flows, room int64[L] of them on each link."""
    links = len(capacity)
    room = np.full(links, 8, dtype=np.int64) if room is None else room
    counter, clock = np.zeros(7, dtype=np.int64), np.array([np.inf, 0.0])
    counter[FREE] = flows
    link, tally = np.zeros((links, 8)), np.zeros((links, 6), dtype=np.int64)
    link[:, CAPACITY], link[:, TOP] = capacity, np.inf
    tally[:, ROOM], tally[:, START] = room, np.cumsum(room) - room
    lists = np.zeros((6, max(links, flows)), dtype=np.int32)
    lists[FREE_SLOTS, :flows] = np.arange(flows - 1, -1, -1)
    return State(
        level=np.full(links + 1, np.inf), due=np.full(links, np.inf), link=link, tally=tally,
        carried=np.zeros(links, dtype=np.int64), bottleneck=np.full(flows, FREE_SLOT, dtype=np.int32),
        mark=np.zeros(flows), flow=np.zeros((flows, 3)), path=np.full((flows, hops), -1, dtype=np.int32),
        place=np.zeros((flows, hops), dtype=np.int32), pool=np.zeros(int(room.sum()), dtype=np.int32),
        other=np.zeros(int(room.sum()), dtype=np.int32), goal=np.zeros(int(room.sum())),
        lists=lists, bound=np.zeros(max(flows, links)), key=np.zeros(links), counter=counter, clock=clock,
    )  # fmt: skip


def with_slots(state: State, flows: int) -> State:
    """The same network with place for `flows` flows, more than before."""
    old, free = len(state.mark), int(state.counter[FREE])
    capacity = state.link[:, CAPACITY]
    bigger = new_state(capacity, state.path.shape[1], flows, state.tally[:, ROOM])
    for name in ("bottleneck", "mark", "flow", "path", "place"):
        getattr(bigger, name)[:old] = getattr(state, name)
    bigger.lists[:, : state.lists.shape[1]] = state.lists
    bigger.lists[FREE_SLOTS, : flows - old] = np.arange(flows - 1, old - 1, -1)
    bigger.lists[FREE_SLOTS, flows - old : flows - old + free] = state.lists[FREE_SLOTS, :free]
    state.counter[FREE] = free + flows - old
    kept = ("level", "due", "link", "tally", "carried", "pool", "other", "goal", "counter", "clock")
    return bigger._replace(**{name: getattr(state, name) for name in kept})


def with_hops(state: State, hops: int) -> State:
    """The same network with place for longer paths."""
    more = ((0, 0), (0, hops - state.path.shape[1]))
    return state._replace(path=np.pad(state.path, more, constant_values=-1), place=np.pad(state.place, more))


def with_room(state: State, wanted: npt.NDArray[np.int64]) -> State:
    """The same network with room for at least wanted int64[L] flows on each link."""
    tally = state.tally
    room = np.where(wanted > tally[:, ROOM], 2 * wanted, tally[:, ROOM])
    start = np.cumsum(room) - room
    held = np.repeat(np.arange(len(room)), tally[:, COUNT])
    within = np.arange(len(held)) - np.repeat(np.cumsum(tally[:, COUNT]) - tally[:, COUNT], tally[:, COUNT])
    moved = {}
    for name in ("pool", "other", "goal"):
        before = getattr(state, name)
        moved[name] = np.zeros(int(room.sum()), dtype=before.dtype)
        moved[name][start[held] + within] = before[tally[held, START] + within]
    tally[:, ROOM], tally[:, START] = room, start
    return state._replace(**moved)


@inlined
def mark_dirty(state: Any, link: int) -> None:
    """The link's level has to be looked at again."""
    if state.tally[link, IS_DIRTY] == 0:
        state.tally[link, IS_DIRTY] = 1
        state.lists[DIRTY_LINKS, state.counter[DIRTY]] = link
        state.counter[DIRTY] += 1


@njit
def enter(state: Any, path: Any, size: Any, which: Any, numbers: Any, now: float) -> None:
    """Flows which int64[n] of path and size start now; their slots go to numbers int64[n]. There must be room."""
    for index in range(which.shape[0]):
        new = which[index]
        state.counter[FREE] -= 1
        flow = state.lists[FREE_SLOTS, state.counter[FREE]]
        numbers[index] = flow
        state.bottleneck[flow], state.mark[flow] = NEW, size[new]
        state.flow[flow, SIZE], state.flow[flow, BEGAN] = size[new], now
        for hop in range(state.path.shape[1]):
            state.path[flow, hop] = path[new, hop] if hop < path.shape[1] else -1
        for hop in range(state.path.shape[1]):
            if state.path[flow, hop] >= 0:
                _attach(state, flow, hop, now)
        state.lists[FRESH_FLOWS, state.counter[FRESH]] = flow
        state.counter[FRESH] += 1
        state.counter[ACTIVE] += 1
    state.counter[FORCED] = 1


@inner
def _attach(state: Any, flow: int, hop: int, now: float) -> None:
    link = state.path[flow, hop]
    held = state.tally[link, COUNT]
    if held == 0:
        state.link[link, BUSY_SINCE] = now
    at = state.tally[link, START] + held
    state.pool[at], state.place[flow, hop] = flow, held
    if state.path.shape[1] == 2:
        second = state.path[flow, 1 - hop]
        state.other[at] = second if second >= 0 else state.due.shape[0]
    elif state.path.shape[1] == 1:
        state.other[at] = state.due.shape[0]
    state.tally[link, COUNT] = held + 1
    state.counter[HOPS] = max(state.counter[HOPS], hop + 1)


@inner
def detach(state: Any, flow: int, rate: float, now: float) -> None:
    """Take a flow of `rate`, nobody's own, off its links; their levels stay until the network is solved again."""
    for hop in range(state.path.shape[1]):
        link = state.path[flow, hop]
        if link < 0:
            break
        last = state.tally[link, COUNT] - 1
        _swap(state, link, state.place[flow, hop], last)
        state.tally[link, COUNT] = last
        if last == 0:
            state.link[link, BUSY] += now - state.link[link, BUSY_SINCE]
            state.link[link, LOAD] = rate  # no residue stays behind
        state.link[link, LOAD] -= rate
        if state.level[link] < np.inf:
            mark_dirty(state, link)


@inner
def _swap(state: Any, link: int, one: int, other: int) -> None:
    """Exchange two flows in the list of a link."""
    if one != other:
        start = state.tally[link, START]
        here, there = start + one, start + other
        first, second = state.pool[here], state.pool[there]
        state.pool[here], state.pool[there] = second, first
        state.other[here], state.other[there] = state.other[there], state.other[here]
        state.goal[here], state.goal[there] = state.goal[there], state.goal[here]
        state.place[first, _hop(state, first, link)] = other
        state.place[second, _hop(state, second, link)] = one


@inner
def _hop(state: Any, flow: int, link: int) -> Any:
    hop = 0
    while state.path[flow, hop] != link:
        hop += 1
    return hop


@inner
def rate_of(state: Any, flow: int) -> Any:
    """B/s of an active flow, as solved last."""
    bottleneck = state.bottleneck[flow]
    if bottleneck == LEAVING:
        return state.flow[flow, RATE]
    return state.level[bottleneck] if bottleneck >= 0 else 0.0


@inlined
def synced(state: Any, link: int, now: float) -> Any:
    """Bring what a link has served to each of its own flows up to now, and how long it was full."""
    if state.level[link] < np.inf:
        state.link[link, SERVED] += state.level[link] * (now - state.link[link, SYNCED])
        state.link[link, SATURATED] += now - state.link[link, SYNCED]
    state.link[link, SYNCED] = now
    return state.link[link, SERVED]


@inner
def join_link(state: Any, flow: int, link: int, left: float, now: float) -> None:
    """The link becomes the flow's bottleneck."""
    mark = synced(state, link, now) + left
    state.bottleneck[flow], state.mark[flow] = link, mark
    own = state.tally[link, OWN]
    _swap(state, link, state.place[flow, _hop(state, flow, link)], own)
    state.tally[link, OWN], state.goal[state.tally[link, START] + own] = own + 1, mark
    if mark < state.link[link, TOP]:
        state.link[link, TOP] = mark
    state.tally[link, STALE] = max(state.tally[link, STALE], 1)


@inner
def leave_link(state: Any, flow: int, now: float) -> Any:
    """The flow's bottleneck is no longer that -> its bytes left. The level must still be the one it was served at."""
    link = state.bottleneck[flow]
    if link < 0:
        return state.mark[flow]
    own = state.tally[link, OWN] - 1
    _swap(state, link, state.place[flow, _hop(state, flow, link)], own)
    state.tally[link, OWN] = own
    if state.mark[flow] <= state.link[link, TOP]:
        state.tally[link, STALE] = 2
    return max(state.mark[flow] - synced(state, link, now), 0.0)


@inner
def push(heap: Any, keys: Any, size: int, item: int) -> None:
    """Enter `item` into a binary heap of `size` items, lowest key first."""
    at = size
    while at > 0 and keys[heap[(at - 1) // 2]] > keys[item]:
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = item


@inner
def pop(heap: Any, keys: Any, size: int) -> Any:
    """Take the item with the lowest key out of a heap of `size` items."""
    top, moved, at = heap[0], heap[size - 1], 0
    while True:
        child = 2 * at + 1
        if child >= size - 1:
            break
        if child + 1 < size - 1 and keys[heap[child + 1]] < keys[heap[child]]:
            child += 1
        if keys[heap[child]] >= keys[moved]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved
    return top
