"""The compiled part of `beside`: the counters and running sets of `machine_kernel`, and collectives by port loads.

Whatever happens to a stream of a rank later on is an event of its slot: a lane starts, a compute lane ends, the own
sends and receives of a collective's lane are over. The next one is the root of a tree of minima; what starts in this
instant waits in a list, as most lanes start when another ends. A lane's own end is known once all that exchange bytes
with it have released, arrivals and the last port once all lanes have; both are told at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import inlined, inner, njit
from moesim.engine.machine_kernel import (
    FOREVER,
    IDLE,
    UNFINISHED,
    UNKNOWN,
    Program,
    change,
    first_slot,
    set_slot,
    settle,
)
from moesim.engine.passes import looked_up, swept
from moesim.engine.timeline import NEVER
from moesim.network.port_times import set_end
from moesim.units import LAST_TICK

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

__all__ = ["UNFINISHED", "Ends", "Exchanges", "Program", "Scratch", "run"]


class Ends(NamedTuple):
    """Of the flows of all patterns, one after the other: owner int64[F]; sent, got int64[F]: the flows that each lane
    sends and receives, counted in its pattern; those of a lane stand from sent_ptr, got_ptr on, at Pairs.lane_at.
    """

    owner: Int64s
    sent_ptr: Int64s
    sent: Int64s
    got_ptr: Int64s
    got: Int64s


class Exchanges(NamedTuple):
    """pattern, size_at of tasks as in a Program of passes; size int64[flows], alpha int64[T] ps; the flows of lanes."""

    pattern: Int32s
    size_at: Int64s
    size: Int64s
    alpha: Int64s
    ends: Ends


class Scratch(NamedTuple):
    """coming int32[slots]: the lane that will start there; due int32[slots], many int64[1]: the lanes that start in
    this instant, and how many they are; known bool[n]: collectives' lanes whose own end is told; silent int64[T]: see
    `_released`; partners uint64[n, words]: bits of the lanes that one exchanges bytes with, found for the tasks of
    partnered bool[T]; missing uint64[words]; now int64[1] ps; the rest as `passes.swept` and `set_end` want them.
    """

    coming: Int32s
    due: Int32s
    many: Int64s
    known: Bools
    silent: Int64s
    partners: npt.NDArray[np.uint64]
    partnered: Bools
    missing: npt.NDArray[np.uint64]
    done: Int64s
    landed: Int64s
    order: Int64s
    load: Int64s
    landings: npt.NDArray[np.float64]
    links: Int64s
    begin: Int64s
    flows: Int32s
    now: Int64s


@njit
def run(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any) -> Any:
    """Everything -> a task whose bytes have to pass a dead link, or -1. Rates are settled once an instant.

    What may make arrays counts references to all that it is handed, an atomic operation each: it is left alone but for
    collectives that one sweep cannot play.
    """
    _begin(program, state, scratch)
    while True:
        task = _until_lookup(program, exchanges, pairs, state, scratch)
        if task < 0:
            return task
        lanes = slice(program.lane_ptr[task], program.lane_ptr[task + 1])
        count, pattern, at = lanes.stop - lanes.start, exchanges.pattern[task], exchanges.size_at[task]
        size = exchanges.size[at : at + pairs.flow_at[pattern + 1] - pairs.flow_at[pattern]]
        release, done, landed = state.start[lanes], scratch.done[:count], scratch.landed[:count]
        end = looked_up(pairs, pattern, size, exchanges.alpha[task], release, done, landed, scratch.links)
        if end < 0:
            return task
        _tell(program, state, scratch, task, end)


@inner
def _begin(program: Any, state: Any, scratch: Any) -> None:
    scratch.now[0], scratch.many[0] = 0, 0
    scratch.coming[:], scratch.known[:], scratch.partnered[:] = IDLE, False, False
    scratch.load[:], scratch.landings[:], scratch.links[:] = 0, 0.0, 0
    for lane in range(state.waits.shape[0]):
        if state.waits[lane] == 0:
            _will_start(program, state, scratch, lane)


@inner
def _until_lookup(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any) -> Any:
    """Event after event -> a collective that has to be looked up, -1 where nothing happens any more."""
    now = scratch.now[0]
    while True:
        task = -1
        if scratch.many[0] > 0:
            scratch.many[0] -= 1
            task = _start(program, exchanges, pairs, state, scratch, scratch.due[scratch.many[0]], now)
        elif state.tree[1] <= now:
            _next(program, state, scratch, now)
        else:
            settle(program, state, now)
            now = state.tree[1]
            scratch.now[0] = now
            if now == FOREVER:
                return -1
        if task >= 0:
            end = _swept(program, exchanges, pairs, state, scratch, task)
            if end < 0:
                return task
            _tell(program, state, scratch, task, end)


@inlined
def _next(program: Any, state: Any, scratch: Any, now: int) -> None:
    """The next event."""
    slot = first_slot(state)
    set_slot(state, slot, FOREVER)
    if scratch.coming[slot] == IDLE:
        _end(program, state, scratch, slot, now)
        return
    scratch.due[scratch.many[0]] = scratch.coming[slot]
    scratch.many[0] += 1
    scratch.coming[slot] = IDLE


@inlined
def _start(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any, lane: int, now: int) -> Any:
    """-> the collective whose last lane this is, or -1."""
    slot, task = _slot(program, lane), program.lane_task[lane]
    state.start[lane], state.slot_lane[slot] = now, lane
    change(state, program.lane_rank[lane])
    if program.is_coflow[task]:
        return _released(program, exchanges, pairs, state, scratch, task)
    state.work[slot], state.since[slot], state.rate[slot] = program.duration[lane], now, UNKNOWN
    return -1


@inlined
def _end(program: Any, state: Any, scratch: Any, slot: int, now: int) -> None:
    """A lane is over; of a collective that frees its stream and no more."""
    lane = state.slot_lane[slot]
    task = program.lane_task[lane]
    state.slot_lane[slot], state.end[lane] = IDLE, now
    change(state, program.lane_rank[lane])
    if program.following[lane] >= 0:
        _meet(program, state, scratch, program.following[lane], now)
    if program.is_coflow[task]:
        return
    _arrived(program, state, scratch, lane, now)
    state.left[task] -= 1
    state.latest[task] = max(state.latest[task], now)
    if state.left[task] == 0:
        _task_over(program, state, scratch, task, state.latest[task])


@inlined
def _meet(program: Any, state: Any, scratch: Any, lane: int, at: int) -> None:
    state.waits[lane] -= 1
    state.ready[lane] = max(state.ready[lane], at)
    if state.waits[lane] == 0:
        _will_start(program, state, scratch, lane)


@inlined
def _will_start(program: Any, state: Any, scratch: Any, lane: int) -> None:
    """All that it waits for is known; its stream is free."""
    if state.ready[lane] <= scratch.now[0]:
        scratch.due[scratch.many[0]] = lane
        scratch.many[0] += 1
        return
    slot = _slot(program, lane)
    scratch.coming[slot] = lane
    set_slot(state, slot, state.ready[lane])


@inlined
def _slot(program: Any, lane: int) -> Any:
    return program.lane_rank[lane] * program.streams + program.stream[program.lane_task[lane]]


@inlined
def _arrived(program: Any, state: Any, scratch: Any, lane: int, at: int) -> None:
    state.arrival[lane] = at
    for index in range(program.lane_out_ptr[lane], program.lane_out_ptr[lane + 1]):
        _meet(program, state, scratch, program.lane_out[index], at)


@inlined
def _task_over(program: Any, state: Any, scratch: Any, task: int, at: int) -> None:
    state.task_end[task] = at
    state.counts[UNFINISHED] -= 1
    for index in range(program.task_out_ptr[task], program.task_out_ptr[task + 1]):
        later = program.task_out[index]
        for lane in range(program.lane_ptr[later], program.lane_ptr[later + 1]):
            _meet(program, state, scratch, lane, at)


@inlined
def _released(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any, task: int) -> Any:
    """A lane of a collective is there -> the collective if it was the last one, else -1; own ends that are known since
    then become events.

    A lane can be over before those come that send it no byte: no own end is known while more lanes are to come than
    there are flows without bytes; where flows may have another owner, or a pair several, as many as there can be.
    """
    begin, stop = program.lane_ptr[task], program.lane_ptr[task + 1]
    if state.left[task] == stop - begin:
        pattern, at = exchanges.pattern[task], exchanges.size_at[task]
        scratch.silent[task] = (stop - begin) * (stop - begin - 1)
        if pairs.swept[pattern]:
            sent = exchanges.size[at : at + pairs.flow_at[pattern + 1] - pairs.flow_at[pattern]]
            scratch.silent[task] -= _moving(sent)
    state.left[task] -= 1
    if state.left[task] == 0:
        return task
    if state.left[task] <= scratch.silent[task]:
        _own_ends(program, exchanges, pairs, state, scratch, task)
    return -1


@inner
def _moving(size: Any) -> Any:
    """Flows with bytes."""
    moving = np.int64(0)
    for flow in range(size.shape[0]):
        moving += size[flow] > 0
    return moving


@inner
def _own_ends(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any, task: int) -> None:
    """Lanes whose partners are all there are over at a known tick."""
    begin, stop = program.lane_ptr[task], program.lane_ptr[task + 1]
    _find_partners(program, exchanges, pairs, scratch, task)
    for word in range(scratch.missing.shape[0]):
        scratch.missing[word] = 0
    for lane in range(stop - begin):
        if state.start[begin + lane] == NEVER:
            scratch.missing[lane // 64] |= np.uint64(1) << np.uint64(lane % 64)
    for lane in range(begin, stop):
        if scratch.known[lane] or state.start[lane] == NEVER:
            continue
        waits = np.uint64(0)
        for word in range(scratch.missing.shape[0]):
            waits |= scratch.partners[lane, word] & scratch.missing[word]
        if waits == 0:
            scratch.known[lane] = True
            set_slot(state, _slot(program, lane), _own_end(program, exchanges, pairs, state, scratch, task, lane))


@inner
def _find_partners(program: Any, exchanges: Any, pairs: Any, scratch: Any, task: int) -> None:
    """Once for each collective: a bit of each lane for every owner of its flows."""
    if scratch.partnered[task]:
        return
    scratch.partnered[task] = True
    pattern, at, begin = exchanges.pattern[task], exchanges.size_at[task], program.lane_ptr[task]
    first = pairs.flow_at[pattern]
    scratch.partners[begin : program.lane_ptr[task + 1]] = 0
    for flow in range(pairs.flow_at[pattern + 1] - first):
        if exchanges.size[at + flow] > 0:
            owner = exchanges.ends.owner[first + flow]
            word, bit = owner // 64, np.uint64(1) << np.uint64(owner % 64)
            scratch.partners[begin + pairs.source[first + flow], word] |= bit
            scratch.partners[begin + pairs.destination[first + flow], word] |= bit


@inner
def _own_end(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any, task: int, lane: int) -> Any:
    """When its own sends and receives are over."""
    end = min(state.start[lane] + exchanges.alpha[task], LAST_TICK)
    ends, at = exchanges.ends, pairs.lane_at[exchanges.pattern[task]] + lane - program.lane_ptr[task]
    sent = ends.sent[ends.sent_ptr[at] : ends.sent_ptr[at + 1]]
    got = ends.got[ends.got_ptr[at] : ends.got_ptr[at + 1]]
    end = max(end, _bound(program, exchanges, pairs, state, scratch, task, sent))
    return max(end, _bound(program, exchanges, pairs, state, scratch, task, got))


@inner
def _bound(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any, task: int, flows: Any) -> Any:
    """Before which tick these flows cannot all be over: `set_end` of those with bytes, last start first."""
    pattern, size_at, begin = exchanges.pattern[task], exchanges.size_at[task], program.lane_ptr[task]
    first, last, count = pairs.flow_at[pattern], pairs.flow_at[pattern + 1], 0
    for index in range(flows.shape[0]):
        flow = flows[index]
        if exchanges.size[size_at + flow] == 0:
            continue
        released = state.start[begin + exchanges.ends.owner[first + flow]]
        scratch.begin[flow] = min(released + exchanges.alpha[task], LAST_TICK)
        place = count
        while place > 0 and scratch.begin[scratch.flows[place - 1]] < scratch.begin[flow]:
            scratch.flows[place] = scratch.flows[place - 1]
            place -= 1
        scratch.flows[place] = flow
        count += 1
    size, path = exchanges.size[size_at : size_at + last - first], pairs.path[first:last]
    return set_end(scratch.flows[:count], scratch.begin, size, path, pairs.slowness, scratch.links[0])


@inlined
def _swept(program: Any, exchanges: Any, pairs: Any, state: Any, scratch: Any, task: int) -> Any:
    """All lanes of a collective are there: its last port's end, where one sweep knows it, else -1."""
    begin, stop, pattern = program.lane_ptr[task], program.lane_ptr[task + 1], exchanges.pattern[task]
    if not pairs.swept[pattern]:
        return np.int64(-1)
    flows, at = pairs.flow_at[pattern + 1] - pairs.flow_at[pattern], exchanges.size_at[task]
    return swept(
        pairs, pattern, exchanges.size[at : at + flows], exchanges.alpha[task], state.start[begin:stop],
        scratch.done[: stop - begin], scratch.landed[: stop - begin], scratch.load, scratch.landings, scratch.order,
    )  # fmt: skip


@inlined
def _tell(program: Any, state: Any, scratch: Any, task: int, end: int) -> None:
    """What was not known of a collective yet. (Inlined, as `_swept`: to hand all arrays on would take longer.)"""
    begin, stop = program.lane_ptr[task], program.lane_ptr[task + 1]
    for lane in range(begin, stop):
        if not scratch.known[lane]:
            set_slot(state, _slot(program, lane), scratch.done[lane - begin])
        _arrived(program, state, scratch, lane, scratch.landed[lane - begin])
    _task_over(program, state, scratch, task, end)
