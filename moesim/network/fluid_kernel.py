"""The compiled part of the fluid network: flat arrays, one function an idea. See fluid.py for the mathematics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.network.compiled import njit

EPSILON = 1e-12  # relative change below which a level or rate counts as unchanged
LARGE_CHANGE = 0.25  # share of dirty links above which filling anew is cheaper than repair (measured at 64 GPUs)
PATIENCE = 64  # repairs per link before a settle that cycles is replaced by a fill
ACTIVE, HEAPED, DIRTY, FREE, TOUCHED = range(5)


class State(NamedTuple):
    """Links [L], flows [F] in reusable slots, and for each (flow, hop) its place in the list of flows of that link."""

    capacity: npt.NDArray[np.float64]
    level: npt.NDArray[np.float64]
    head: npt.NDArray[np.int32]
    number: npt.NDArray[np.int64]
    carried: npt.NDArray[np.int64]
    busy: npt.NDArray[np.float64]
    busy_since: npt.NDArray[np.float64]
    dirty: npt.NDArray[np.int32]
    is_dirty: npt.NDArray[np.bool_]
    room: npt.NDArray[np.float64]
    unfixed: npt.NDArray[np.int64]
    path: npt.NDArray[np.int32]
    size: npt.NDArray[np.float64]
    left: npt.NDArray[np.float64]
    rate: npt.NDArray[np.float64]
    since: npt.NDArray[np.float64]
    due: npt.NDArray[np.float64]
    began: npt.NDArray[np.float64]
    following: npt.NDArray[np.int32]
    before: npt.NDArray[np.int32]
    heap: npt.NDArray[np.int32]
    place: npt.NDArray[np.int32]
    free: npt.NDArray[np.int32]
    touched: npt.NDArray[np.int32]
    is_touched: npt.NDArray[np.bool_]
    bound: npt.NDArray[np.float64]
    counter: npt.NDArray[np.int64]


def new_state(capacity: npt.NDArray[np.float64], hops: int, flows: int) -> State:
    """An empty network with room for `flows` flows."""
    links = len(capacity)
    ints, floats = np.int32, np.float64
    counter = np.zeros(5, dtype=np.int64)
    counter[FREE] = flows
    return State(
        capacity=capacity.copy(), level=np.full(links, np.inf), head=np.full(links, -1, ints),
        number=np.zeros(links, np.int64), carried=np.zeros(links, np.int64), busy=np.zeros(links),
        busy_since=np.zeros(links), dirty=np.zeros(links, ints), is_dirty=np.zeros(links, np.bool_),
        room=np.zeros(links), unfixed=np.zeros(links, np.int64),
        path=np.full((flows, hops), -1, ints), size=np.zeros(flows), left=np.zeros(flows), rate=np.zeros(flows),
        since=np.zeros(flows), due=np.full(flows, np.inf), began=np.zeros(flows),
        following=np.full(flows * hops, -1, ints), before=np.full(flows * hops, -1, ints),
        heap=np.zeros(flows, ints), place=np.full(flows, -1, ints),
        free=np.arange(flows - 1, -1, -1, dtype=ints), touched=np.zeros(flows, ints),
        is_touched=np.zeros(flows, np.bool_), bound=np.zeros(flows, floats), counter=counter,
    )  # fmt: skip


def grown(state: State, flows: int) -> State:
    """The same network with room for `flows` flows."""
    old = len(state.size)
    bigger = new_state(state.capacity, state.path.shape[1], flows)
    for name in State._fields:
        before, after = getattr(state, name), getattr(bigger, name)
        if name != "free":
            after[: len(before)] = before
    free = np.concatenate((np.arange(flows - 1, old - 1, -1, dtype=np.int32), state.free[: state.counter[FREE]]))
    bigger.free[: len(free)] = free
    bigger.counter[FREE] = len(free)
    return bigger


@njit
def _mark(state: Any, link: int) -> None:
    if not state.is_dirty[link]:
        state.is_dirty[link] = True
        state.dirty[state.counter[DIRTY]] = link
        state.counter[DIRTY] += 1


@njit
def _touch(state: Any, flow: int) -> None:
    if not state.is_touched[flow]:
        state.is_touched[flow] = True
        state.touched[state.counter[TOUCHED]] = flow
        state.counter[TOUCHED] += 1


@njit
def _attach(state: Any, flow: int, now: float) -> None:
    """Enter the flow into the list of each of its links."""
    hops = state.path.shape[1]
    for hop in range(hops):
        link = state.path[flow, hop]
        if link < 0:
            break
        entry = flow * hops + hop
        first = state.head[link]
        state.following[entry] = first
        state.before[entry] = -1
        if first >= 0:
            state.before[first] = entry
        state.head[link] = entry
        if state.number[link] == 0:
            state.busy_since[link] = now
        state.number[link] += 1
        _mark(state, link)


@njit
def _detach(state: Any, flow: int, now: float) -> None:
    """Take the flow out of its links and free its slot."""
    hops = state.path.shape[1]
    for hop in range(hops):
        link = state.path[flow, hop]
        if link < 0:
            break
        entry = flow * hops + hop
        after, earlier = state.following[entry], state.before[entry]
        if after >= 0:
            state.before[after] = earlier
        if earlier >= 0:
            state.following[earlier] = after
        else:
            state.head[link] = after
        state.number[link] -= 1
        if state.number[link] == 0:
            state.busy[link] += now - state.busy_since[link]
        _mark(state, link)
    _heap_remove(state, flow)
    state.rate[flow] = 0.0
    state.free[state.counter[FREE]] = flow
    state.counter[FREE] += 1
    state.counter[ACTIVE] -= 1


@njit
def add(state: Any, path: Any, size: Any, numbers: Any, now: float) -> None:
    """New flows, released now, with no rate yet."""
    for new in range(size.shape[0]):
        state.counter[FREE] -= 1
        flow = state.free[state.counter[FREE]]
        numbers[new] = flow
        state.path[flow, :] = -1
        for hop in range(path.shape[1]):
            state.path[flow, hop] = path[new, hop]
        state.size[flow] = size[new]
        state.left[flow] = size[new]
        state.rate[flow] = 0.0
        state.since[flow] = now
        state.began[flow] = now
        state.due[flow] = np.inf
        _attach(state, flow, now)
        _touch(state, flow)
        state.counter[ACTIVE] += 1


@njit
def set_capacity(state: Any, link: int, capacity: float) -> None:
    """The link and all its flows have to be looked at again."""
    state.capacity[link] = capacity
    _mark(state, link)


@njit
def settle(state: Any, now: float) -> None:
    """Bring levels, then rates and due times, up to date."""
    if state.counter[DIRTY] == 0:
        return
    if state.counter[DIRTY] > LARGE_CHANGE * state.capacity.shape[0] or not _repair(state):
        _fill(state)
    for index in range(state.counter[TOUCHED]):
        flow = state.touched[index]
        state.is_touched[flow] = False
        if state.place[flow] >= 0 or state.left[flow] > 0:
            _retime(state, flow, now)
    state.counter[TOUCHED] = 0


@njit
def _least_level(state: Any, flow: int, but: int) -> float:
    """The least level on the flow's path, leaving one link out."""
    least = np.inf
    for hop in range(state.path.shape[1]):
        link = state.path[flow, hop]
        if link < 0:
            break
        if link != but:
            least = min(least, state.level[link])
    return least


@njit
def _level_of(state: Any, link: int) -> float:
    """The level that makes the link exactly full, given the levels elsewhere; infinite where it cannot be filled."""
    hops = state.path.shape[1]
    count = 0
    entry = state.head[link]
    while entry >= 0:
        state.bound[count] = _least_level(state, entry // hops, link)
        count += 1
        entry = state.following[entry]
    level, limited = 0.0, -1
    while True:
        total, below = 0.0, 0
        for index in range(count):
            if state.bound[index] <= level:
                total += state.bound[index]
                below += 1
        if below == count:
            return np.inf if total <= state.capacity[link] * (1 + EPSILON) else level
        if below <= limited:  # rounding may make a tied bound step back; the level only rises
            return level
        limited = below
        level = max((state.capacity[link] - total) / (count - below), level)


@njit
def _repair(state: Any) -> bool:
    """Recompute dirty links until none is left; False where that takes longer than filling anew."""
    budget = PATIENCE * state.capacity.shape[0]
    while state.counter[DIRTY] > 0:
        budget -= 1
        if budget < 0:
            return False
        link = _lowest_dirty(state)
        old, new = state.level[link], _level_of(state, link)
        if new == old or abs(new - old) <= EPSILON * min(new, old):
            continue
        state.level[link] = new
        _spread(state, link, old, new)
    return True


@njit
def _lowest_dirty(state: Any) -> Any:
    """Take the dirty link with the lowest level."""
    best = 0
    for index in range(1, state.counter[DIRTY]):
        if state.level[state.dirty[index]] < state.level[state.dirty[best]]:
            best = index
    link = state.dirty[best]
    state.counter[DIRTY] -= 1
    state.dirty[best] = state.dirty[state.counter[DIRTY]]
    state.is_dirty[link] = False
    return link


@njit
def _spread(state: Any, link: int, old: float, new: float) -> None:
    """A level changed: note the flows whose rate did, and the links to which they now bring more or less."""
    hops = state.path.shape[1]
    entry = state.head[link]
    while entry >= 0:
        flow = entry // hops
        entry = state.following[entry]
        rest = _least_level(state, flow, link)
        if min(old, rest) == min(new, rest):
            continue
        _touch(state, flow)
        for hop in range(hops):
            other = state.path[flow, hop]
            if other < 0:
                break
            if other != link and state.level[other] >= min(old, new):
                _mark(state, other)


@njit
def _fill(state: Any) -> None:
    """Progressive filling: the link with the least share per flow is full first; its flows are fixed, and so on."""
    links, hops = state.capacity.shape[0], state.path.shape[1]
    keys, heap, size = np.full(links, np.inf), np.empty(links, np.int32), 0
    for link in range(links):
        state.is_dirty[link] = False
        state.level[link] = np.inf
        state.room[link] = state.capacity[link]
        state.unfixed[link] = state.number[link]
    state.counter[DIRTY] = 0
    for link in range(links):
        if state.number[link] > 0:
            keys[link] = state.room[link] / state.unfixed[link]
            heap[size] = link
            size += 1
    order = np.argsort(keys[heap[:size]])
    heap[:size] = heap[:size][order]
    while size > 0:
        link = _pop_link(heap, keys, size)
        size -= 1
        if state.unfixed[link] == 0:
            continue
        share = state.room[link] / state.unfixed[link]
        if share > keys[link] * (1 + EPSILON):
            keys[link] = share
            _push_link(heap, keys, size, link)
            size += 1
            continue
        state.level[link] = max(share, 0.0)
        entry = state.head[link]
        while entry >= 0:
            flow = entry // hops
            entry = state.following[entry]
            if _least_level(state, flow, link) == np.inf:
                _fix(state, flow, state.level[link])


@njit
def _fix(state: Any, flow: int, rate: float) -> None:
    """The flow has its rate; its links have that much less room for the others."""
    _touch(state, flow)
    for hop in range(state.path.shape[1]):
        link = state.path[flow, hop]
        if link < 0:
            break
        state.room[link] = max(state.room[link] - rate, 0.0)
        state.unfixed[link] -= 1


@njit
def _pop_link(heap: Any, keys: Any, size: int) -> Any:
    top = heap[0]
    moved = heap[size - 1]
    at = 0
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


@njit
def _push_link(heap: Any, keys: Any, size: int, link: int) -> None:
    at = size
    while at > 0 and keys[heap[(at - 1) // 2]] > keys[link]:
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = link


@njit
def _retime(state: Any, flow: int, now: float) -> None:
    """Give the flow its rate and the time at which it will end."""
    rate = _least_level(state, flow, -1)
    old = state.rate[flow]
    if rate == old or abs(rate - old) <= EPSILON * old:
        return
    state.left[flow] = max(state.left[flow] - old * (now - state.since[flow]), 0.0)
    state.since[flow] = now
    state.rate[flow] = rate
    state.due[flow] = now + state.left[flow] / rate if rate > 0 else np.inf
    _heap_put(state, flow)


@njit
def _heap_put(state: Any, flow: int) -> None:
    """Enter the flow into the heap of due times, or move it to its new place."""
    at = state.place[flow]
    if at < 0:
        at = state.counter[HEAPED]
        state.counter[HEAPED] += 1
    _sift(state, flow, at)


@njit
def _heap_remove(state: Any, flow: int) -> None:
    at = state.place[flow]
    if at < 0:
        return
    state.place[flow] = -1
    state.counter[HEAPED] -= 1
    if at < state.counter[HEAPED]:
        _sift(state, state.heap[state.counter[HEAPED]], at)


@njit
def _sift(state: Any, flow: int, at: int) -> None:
    """Put `flow` at `at`, then up or down to where it belongs."""
    heap, due, size = state.heap, state.due, state.counter[HEAPED]
    while at > 0 and due[heap[(at - 1) // 2]] > due[flow]:
        heap[at] = heap[(at - 1) // 2]
        state.place[heap[at]] = at
        at = (at - 1) // 2
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and due[heap[child + 1]] < due[heap[child]]:
            child += 1
        if due[heap[child]] >= due[flow]:
            break
        heap[at] = heap[child]
        state.place[heap[at]] = at
        at = child
    heap[at] = flow
    state.place[flow] = at


@njit
def next_due(state: Any) -> float:
    """The earliest due time; infinite where no flow moves."""
    return state.due[state.heap[0]] if state.counter[HEAPED] > 0 else np.inf


@njit
def complete(state: Any, now: float, window: float) -> Any:
    """Finish every flow that is due by now, or within `window` of its own age -> their numbers."""
    ended = np.empty(state.counter[HEAPED], np.int64)
    count = 0
    while state.counter[HEAPED] > 0:
        flow = state.heap[0]
        if state.due[flow] > now + max(window * (now - state.began[flow]), EPSILON * now):
            break
        ended[count] = flow
        count += 1
        _finish(state, flow, now)
    return ended[:count]


@njit
def _finish(state: Any, flow: int, now: float) -> None:
    for hop in range(state.path.shape[1]):
        if state.path[flow, hop] >= 0:
            state.carried[state.path[flow, hop]] += np.int64(state.size[flow])
    state.left[flow] = 0.0
    _detach(state, flow, now)


@njit
def abort(state: Any, flows: Any, now: float) -> Any:
    """Take flows out -> the bytes each still had to send."""
    left = np.empty(flows.shape[0])
    for index in range(flows.shape[0]):
        flow = flows[index]
        left[index] = max(state.left[flow] - state.rate[flow] * (now - state.since[flow]), 0.0)
        state.left[flow] = 0.0
        _detach(state, flow, now)
    return left
