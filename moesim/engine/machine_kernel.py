"""The compiled part of the event-driven player: counters per lane, a running set per rank, the next end per stream.

A lane is ready when its counter of unmet waits is 0 (one for the lane before it on its stream, one per edge). On each
rank the running lanes advance at speed[class, set of the others' classes] x the rank's own speed; a lane whose rate
does not change keeps its end to the tick.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import inlined, inner, njit
from moesim.units import LAST_TICK

FOREVER = np.iinfo(np.int64).max
LONGEST = float(1 << 62)  # ticks, 53 days: whatever takes as long ends at LAST_TICK, too late for the clock
IDLE = -1
UNKNOWN = -1.0  # the rate of a lane that starts in this instant
RELEASED, CHANGED, UNFINISHED = 0, 1, 2  # places in State.counts

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


class Program(NamedTuple):
    """What never changes: n lanes, T tasks; CSR of the lanes and tasks that wait for each lane and task.

    lane_out: lanes that wait for a compute lane's end, or a coflow lane's arrival; task_out: tasks that wait for the
    end of all of a task; following: the next lane on the stream; bit int64[classes]; table float64[classes, 2 ** bits];
    streams: slots of a rank (a number, as a division for every lane would take a tenth of the time).
    """

    lane_ptr: Int64s
    lane_rank: Int32s
    lane_task: Int32s
    duration: Int64s
    is_coflow: npt.NDArray[np.bool_]
    stream: npt.NDArray[np.int8]
    task_class: npt.NDArray[np.int16]
    following: Int32s
    lane_out_ptr: Int64s
    lane_out: Int32s
    task_out_ptr: Int64s
    task_out: Int32s
    bit: Int64s
    table: Floats
    streams: int


class State(NamedTuple):
    """What changes. Slots are (rank, stream): lane in it, work left in ticks, rate, since when; tree: their ends.

    waits int32[n]; ready int64[n]: the latest wait met so far; left, latest int64[T]: lanes to come, the latest end so
    far; start, end, arrival int64[n]; task_end int64[T]; speed float64[ranks]; released int32[n]: coflow lanes whose
    release nobody has been told of yet; changed int32[ranks], is_changed: ranks whose running set changed in this
    instant; counts int64[3]: how many of each, and of tasks that have not ended.
    """

    waits: Int32s
    ready: Int64s
    left: Int64s
    latest: Int64s
    start: Int64s
    end: Int64s
    arrival: Int64s
    task_end: Int64s
    slot_lane: Int32s
    work: Floats
    rate: Floats
    since: Int64s
    tree: Int64s
    speed: Floats
    released: Int32s
    changed: Int32s
    is_changed: npt.NDArray[np.bool_]
    counts: Int64s


@njit
def begin(program: Any, state: Any, now: int) -> None:
    """Start every lane that waits for nothing."""
    for lane in range(state.waits.shape[0]):
        if state.waits[lane] == 0:
            _start(program, state, lane, now)


@njit
def run(program: Any, state: Any, now: int, until: int, pause: bool) -> Any:
    """End compute lanes up to `until`; with `pause` not past the first instant that releases a coflow lane.

    -> (the last instant played, or `now`; the next end, FOREVER where nothing runs).
    """
    settle(program, state, now)
    while state.tree[1] <= until and state.tree[1] < FOREVER and not (pause and state.counts[RELEASED] > 0):
        now = state.tree[1]
        while state.tree[1] == now:
            while state.tree[1] == now:
                _finish(program, state, first_slot(state), now)
            settle(program, state, now)
    return now, state.tree[1]


@njit
def free_lanes(program: Any, state: Any, lanes: Any, now: int) -> None:
    """The own sends and receives of coflow lanes are done: their streams go on."""
    for lane in lanes:
        rank = program.lane_rank[lane]
        state.end[lane] = now
        state.slot_lane[rank * program.streams + program.stream[program.lane_task[lane]]] = IDLE
        change(state, rank)
        if program.following[lane] >= 0:
            _meet(program, state, program.following[lane], now)


@njit
def arrive(program: Any, state: Any, lanes: Any, now: int) -> None:
    """All bytes for these coflow lanes have landed and every lane has released."""
    for lane in lanes:
        state.arrival[lane] = now
        for index in range(program.lane_out_ptr[lane], program.lane_out_ptr[lane + 1]):
            _meet(program, state, program.lane_out[index], now)


@njit
def end_task(program: Any, state: Any, task: int, now: int) -> None:
    """The last lane, or the last port, is done."""
    state.task_end[task] = now
    state.counts[UNFINISHED] -= 1
    for index in range(program.task_out_ptr[task], program.task_out_ptr[task + 1]):
        later = program.task_out[index]
        for lane in range(program.lane_ptr[later], program.lane_ptr[later + 1]):
            _meet(program, state, lane, now)


@njit
def set_speed(state: Any, rank: int, speed: float) -> None:
    """A rank gets slower or faster; 0 stops its compute."""
    state.speed[rank] = speed
    change(state, rank)


@inner
def _meet(program: Any, state: Any, lane: int, now: int) -> None:
    state.waits[lane] -= 1
    state.ready[lane] = max(state.ready[lane], now)
    if state.waits[lane] == 0:
        _start(program, state, lane, state.ready[lane])


@inner
def _start(program: Any, state: Any, lane: int, now: int) -> None:
    task, rank = program.lane_task[lane], program.lane_rank[lane]
    slot = rank * program.streams + program.stream[task]
    state.start[lane] = now
    state.slot_lane[slot] = lane
    if program.is_coflow[task]:
        state.released[state.counts[RELEASED]] = lane
        state.counts[RELEASED] += 1
    else:
        state.work[slot] = program.duration[lane]
        state.since[slot] = now
        state.rate[slot] = UNKNOWN
    change(state, rank)


@inner
def _finish(program: Any, state: Any, slot: int, now: int) -> None:
    """The compute lane in the slot ends."""
    lane = state.slot_lane[slot]
    task = program.lane_task[lane]
    state.slot_lane[slot] = IDLE
    set_slot(state, slot, FOREVER)
    state.end[lane] = now
    state.arrival[lane] = now
    change(state, program.lane_rank[lane])
    if program.following[lane] >= 0:
        _meet(program, state, program.following[lane], now)
    for index in range(program.lane_out_ptr[lane], program.lane_out_ptr[lane + 1]):
        _meet(program, state, program.lane_out[index], now)
    state.left[task] -= 1
    state.latest[task] = max(state.latest[task], now)
    if state.left[task] == 0:
        end_task(program, state, task, state.latest[task])


@inlined
def change(state: Any, rank: int) -> None:
    if not state.is_changed[rank]:
        state.is_changed[rank] = True
        state.changed[state.counts[CHANGED]] = rank
        state.counts[CHANGED] += 1


@inlined
def settle(program: Any, state: Any, now: int) -> None:
    """Once an instant, so that the order of its events has no effect."""
    for index in range(state.counts[CHANGED]):
        state.is_changed[state.changed[index]] = False
        _rerate(program, state, state.changed[index], now)
    state.counts[CHANGED] = 0


@inlined
def _rerate(program: Any, state: Any, rank: int, now: int) -> None:
    """The running set of a rank changed: new rates, and new ends where a rate differs."""
    first = rank * program.streams
    for slot in range(first, first + program.streams):
        lane = state.slot_lane[slot]
        if lane == IDLE or program.is_coflow[program.lane_task[lane]]:
            continue
        others = np.int64(0)
        for beside in range(first, first + program.streams):
            if beside != slot and state.slot_lane[beside] != IDLE:
                others |= program.bit[program.task_class[program.lane_task[state.slot_lane[beside]]]]
        rate = program.table[program.task_class[program.lane_task[lane]], others] * state.speed[rank]
        if rate == state.rate[slot]:
            continue
        if state.rate[slot] != UNKNOWN:
            state.work[slot] = max(state.work[slot] - (now - state.since[slot]) * state.rate[slot], 0.0)
            state.since[slot] = now
        state.rate[slot] = rate
        end = FOREVER
        if rate > 0:
            lasts = np.int64(np.ceil(min(state.work[slot] / rate, LONGEST)))
            end = min(state.since[slot] + lasts, LAST_TICK)
        set_slot(state, slot, end)


@inlined
def set_slot(state: Any, slot: int, end: Any) -> None:
    """Enter a slot's end into the tree of minima, up to where it changes none."""
    at = state.tree.shape[0] // 2 + slot
    state.tree[at] = end
    while at > 1:
        at //= 2
        earlier = min(state.tree[2 * at], state.tree[2 * at + 1])
        if state.tree[at] == earlier:
            return
        state.tree[at] = earlier


@inlined
def first_slot(state: Any) -> Any:
    """A slot with the earliest end, the lowest of equals."""
    at, half = 1, state.tree.shape[0] // 2
    while at < half:
        at = 2 * at if state.tree[2 * at] == state.tree[1] else 2 * at + 1
    return at - half
