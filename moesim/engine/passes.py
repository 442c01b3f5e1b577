"""The pass: a filled skeleton in one compiled sweep over its tasks, collectives by port loads, clocks carried on.

What `evaluate` does with a TaskGraph, to the tick, without crossing Python for each collective and without keeping rows
of transfers. A pattern is played from a State (how far each rank and stream is, what has arrived for each rank) to the
next one, so that a long step is its patterns one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.compiled import inlined, inner, njit
from moesim.engine.skeleton import Pairs, Skeleton, Values
from moesim.engine.wiring import ARRIVAL, GROUP
from moesim.errors import Deadlock
from moesim.network.port_times import after, coflow_times
from moesim.units import LAST_TICK, beyond_clock

Int64s = npt.NDArray[np.int64]
EXACT = 2.0**53  # whole numbers below it are floats (150 minutes in ticks); beyond it a collective is looked up
NO_LATENCY: Int64s = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class State:
    """clock int64[ranks, streams] ps: how far each stream is; arrived int64[ranks] ps: before which nothing that waits
    for no task of its own pattern may start.
    """

    clock: Int64s
    arrived: Int64s

    @classmethod
    def at_zero(cls, ranks: int, streams: int) -> State:
        """Before everything."""
        return cls(np.zeros((ranks, streams), dtype=np.int64), np.zeros(ranks, dtype=np.int64))

    @property
    def end(self) -> int:
        """The last tick that any stream has reached."""
        return int(self.clock.max(initial=0))


def play(skeleton: Skeleton, values: Values, pairs: Pairs, state: State) -> tuple[State, int]:
    """Everything once, from `state` on -> the State afterwards (arrived: as it was) and the last tick of any task.

    That tick is the end of the last task; what links that several collectives filled at once would need beyond it
    (`Timeline.links_end`) takes rows of transfers, so only the graph players know it. Raises Deadlock where bytes have
    to pass a link without capacity, BadInput beyond the clock's range.
    """
    after, end, _ = timed(skeleton, values, pairs, state)
    return after, end


def timed(skeleton: Skeleton, values: Values, pairs: Pairs, state: State) -> tuple[State, int, Int64s]:
    """`play`, and when each lane starts int64[n] ps: in a collective, when what it sends is there."""
    clock = state.clock.copy()
    lanes, tasks = skeleton.graph.num_lanes, skeleton.graph.num_tasks
    scratch = np.zeros((3, len(pairs.slowness)), dtype=np.int64)
    start, done, arrival = (np.empty(lanes, np.int64) for _ in range(3))
    load, landings = np.zeros(len(pairs.slow), np.int64), np.zeros((2, len(pairs.slow)))
    program = skeleton.program
    if values.pattern is not None and values.size_at is not None:
        program = program._replace(pattern=values.pattern, size_at=values.size_at)
    bad, end = sweep_all(
        program, pairs, values.lane_ps, values.size, values.alpha, clock, state.arrived, start, done, arrival,
        np.empty(tasks, np.int64), load, landings, np.empty(pairs.most_lanes, np.int64), scratch,
    )  # fmt: skip
    if bad >= 0:
        raise Deadlock(f"{skeleton.graph.describe(bad)} sends bytes over a link without capacity")
    if end >= LAST_TICK:
        raise beyond_clock("the step ends too late")
    return State(clock, state.arrived), int(end), start


@njit
def sweep_all(
    program: Any, pairs: Any, lane_ps: Any, size: Any, alpha: Any, clock: Any, arrived: Any, start: Any, end: Any,
    arrival: Any, task_end: Any, load: Any, landings: Any, order: Any, scratch: Any,
) -> Any:  # fmt: skip
    """Fills start, end, arrival int64[n] and task_end int64[T], moves clock on -> (a task over a dead link or -1, the
    last tick).

    What may make arrays counts references to all that it is handed, an atomic operation each: it is left alone but for
    collectives that one sweep cannot play.
    """
    task = 0
    while True:
        task = _until_lookup(
            program, pairs, lane_ps, size, alpha, clock, arrived, start, end, arrival, task_end, load, landings, order,
            task,
        )  # fmt: skip
        if task == program.pattern.shape[0]:
            return -1, _latest(task_end)
        begin, stop, pattern = program.lane_ptr[task], program.lane_ptr[task + 1], program.pattern[task]
        sent = size[program.size_at[task] :][: pairs.flow_at[pattern + 1] - pairs.flow_at[pattern]]
        release, done, landed = start[begin:stop], end[begin:stop], arrival[begin:stop]
        task_end[task] = looked_up(pairs, pattern, sent, alpha[task], release, done, landed, scratch)
        if task_end[task] < 0:
            return task, np.int64(0)
        _move_on(program, task, clock, end)
        task += 1


@inner
def _until_lookup(
    program: Any, pairs: Any, lane_ps: Any, size: Any, alpha: Any, clock: Any, arrived: Any, start: Any, end: Any,
    arrival: Any, task_end: Any, load: Any, landings: Any, order: Any, task: int,
) -> Any:  # fmt: skip
    """Task after task from `task` on -> a collective that has to be looked up, the number of tasks where none has."""
    while task < program.pattern.shape[0]:
        begin, stop, pattern = program.lane_ptr[task], program.lane_ptr[task + 1], program.pattern[task]
        _starts(program, task, clock, arrived, start, end, arrival, task_end)
        if pattern < 0:
            latest = np.int64(0)
            for lane in range(begin, stop):
                end[lane] = min(start[lane] + lane_ps[lane], LAST_TICK)
                arrival[lane] = end[lane]
                latest = max(latest, end[lane])
            task_end[task] = latest
        else:
            if not pairs.swept[pattern]:
                return task
            sent = size[program.size_at[task] :][: pairs.flow_at[pattern + 1] - pairs.flow_at[pattern]]
            release, done, landed = start[begin:stop], end[begin:stop], arrival[begin:stop]
            task_end[task] = swept(pairs, pattern, sent, alpha[task], release, done, landed, load, landings, order)
            if task_end[task] < 0:
                return task
        _move_on(program, task, clock, end)
        task += 1
    return task


@inlined
def _move_on(program: Any, task: int, clock: Any, end: Any) -> None:
    """The streams of a task that has ended."""
    for lane in range(program.lane_ptr[task], program.lane_ptr[task + 1]):
        clock[program.lane_rank[lane], program.stream[task]] = end[lane]


@inlined
def _latest(task_end: Any) -> Any:
    last = np.int64(0)
    for task in range(task_end.shape[0]):
        last = max(last, task_end[task])
    return last


@inner
def _starts(
    program: Any, task: int, clock: Any, arrived: Any, start: Any, end: Any, arrival: Any, task_end: Any
) -> None:
    """When the lanes of a task may start: their streams are free, and their edges met."""
    begin, stop = program.lane_ptr[task], program.lane_ptr[task + 1]
    first, last = program.edge_ptr[task], program.edge_ptr[task + 1]
    for lane in range(begin, stop):
        start[lane] = clock[program.lane_rank[lane], program.stream[task]]
        if first == last:
            start[lane] = max(start[lane], arrived[program.lane_rank[lane]])
    for edge in range(first, last):
        earlier, join = program.edge_from[edge], program.edge_join[edge]
        for lane in range(begin, stop):
            if join == GROUP or (join != ARRIVAL and program.pattern[earlier] >= 0):
                met = task_end[earlier]
            else:
                met = arrival[program.wire[program.wire_ptr[edge] + lane - begin]]
            start[lane] = max(start[lane], met)


@inner
def swept(
    pairs: Any, pattern: int, size: Any, alpha: int, release: Any, done: Any, landed: Any, load: Any, landings: Any,
    order: Any,
) -> Any:  # fmt: skip
    """One collective in one sweep over its flows -> the end of its last port, -1 where floats are not exact any more.

    Fills done and landed int64[R]: `done` and `arrival` of `port_times.coflow_times`. load int64[ports] and landings
    float64[2, ports] are scratch, zeros before and after; so is order int64[R].
    """
    lane_at, latest = pairs.lane_at[pattern], np.int64(0)
    for lane in range(release.shape[0]):
        done[lane], landed[lane] = min(release[lane] + alpha, LAST_TICK), 0
        latest = max(latest, done[lane])
    end = latest
    _last_first(release, order)
    for place in range(release.shape[0]):
        owner = order[place]
        begin, first, last = done[owner], pairs.part[lane_at + owner], pairs.part[lane_at + owner + 1]
        for part in range(first, last):
            flow, port, many = pairs.first[part], pairs.into[part], pairs.many[part]
            got, ends = landings[0, port : port + many], landings[1, port : port + many]
            sent = _land(size[flow : flow + many], pairs.slow[port : port + many], float(begin), got, ends)
            load[pairs.out[part]] += sent
            for index in range(pairs.shared_ptr[part], pairs.shared_ptr[part + 1]):
                load[pairs.shared[index]] += sent
        for part in range(first, last):
            port = pairs.out[part]
            if load[port] > 0:
                done[owner] = max(done[owner], after(begin, load[port] * pairs.slow[port]))
            for index in range(pairs.shared_ptr[part], pairs.shared_ptr[part + 1]):
                port = pairs.shared[index]
                if load[port] > 0:
                    end = max(end, after(begin, load[port] * pairs.slow[port]))
    last_landing = _settle(pairs, pattern, landed, load, landings)
    for lane in range(release.shape[0]):
        done[lane] = max(done[lane], landed[lane])
        landed[lane] = max(landed[lane], latest)
        end = max(end, done[lane])
    return end if last_landing < EXACT else np.int64(-1)


@inlined
def _land(size: Any, slow: Any, begin: float, got: Any, ends: Any) -> Any:
    """Load the ports that a stretch of flows lands by -> its bytes. (All pair lists in a call's arguments would cost
    more than the stretch.)

    A port that has got bytes before ends no earlier by a flow without any, as it is released no later: only a port that
    has got none yet has to be told apart, and neighbours can be added up several at a time.
    """
    total = np.int64(0)
    for one in range(size.shape[0]):
        total += size[one]
        bytes_ = got[one] + size[one]
        got[one] = bytes_
        lands = begin + np.rint(bytes_ * slow[one]) if bytes_ > 0.0 else 0.0
        ends[one] = lands if lands > ends[one] else ends[one]
    return total


@inner
def _settle(pairs: Any, pattern: int, landed: Any, load: Any, landings: Any) -> Any:
    """Landings by lane; empties the scratch -> the last of them. Sums of floats below EXACT have not been rounded."""
    last = 0.0
    for port in range(pairs.port_at[pattern], pairs.port_at[pattern + 1]):
        lane = pairs.lane_in[port]
        if lane >= 0 and landings[0, port] > 0.0:
            last = max(last, landings[0, port], landings[1, port])
            landed[lane] = max(landed[lane], np.int64(min(landings[1, port], EXACT)))
        load[port], landings[0, port], landings[1, port] = 0, 0.0, 0.0
    return last


@inner
def _last_first(release: Any, order: Any) -> None:
    """Lanes by release, the last one first and equal ones by number: most often they stand so already."""
    for lane in range(release.shape[0]):
        place = lane
        while place > 0 and release[order[place - 1]] < release[lane]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = lane


@njit
def looked_up(
    pairs: Any, pattern: int, size: Any, alpha: int, release: Any, done: Any, landed: Any, scratch: Any
) -> Any:  # fmt: skip
    """`swept` for any pattern, by the bounds of every set of flows."""
    first, last = pairs.flow_at[pattern], pairs.flow_at[pattern + 1]
    owner_ptr = pairs.owner_ptr[pairs.lane_at[pattern] : pairs.lane_at[pattern + 1]]
    end, spans = coflow_times(
        release, alpha, owner_ptr, pairs.source[first:last], pairs.destination[first:last], size,
        pairs.path[first:last], NO_LATENCY, NO_LATENCY, pairs.slowness, scratch[0], scratch[1], scratch[2], done,
        landed,
    )  # fmt: skip
    for link in spans[0]:
        if np.isinf(pairs.slowness[link]):
            return np.int64(-1)
    return end
