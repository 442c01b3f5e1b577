"""Machine: one graph played event by event. Compute is its own; of coflows it only tells releases and is told ends.

The World's player and `evaluate` with interference both drive it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.engine import machine_kernel as kernel
from moesim.engine.graph import TaskGraph
from moesim.engine.speed import Speed
from moesim.engine.timeline import NEVER
from moesim.engine.wiring import GROUP

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Release = tuple[int, npt.NDArray[np.int64], int]  # task, its lanes (0 = first of the task), tick


class Machine:
    """State of one graph under way. Times are int64 ps; the caller's clock never falls."""

    def __init__(self, graph: TaskGraph, speed: Speed | None = None) -> None:
        self.graph = graph
        self._program = program_of(graph, speed or Speed({}))
        self._state = state_of(graph)

    def begin(self, now: int) -> None:
        """Start what waits for nothing."""
        kernel.begin(self._program, self._state, now)

    def run(self, now: int, until: int, *, pause: bool) -> tuple[int, int]:
        """End compute up to `until`; with `pause` not past the first instant with releases.

        Where a rank runs at one speed whatever else it runs, lanes may be played ahead of the news from the network: a
        lane starts at the latest of what it waits for, in whichever order that is told.

        -> (the last instant played, or `now`; when the next compute lane ends, FOREVER where none runs).
        """
        reached, ahead = kernel.run(self._program, self._state, now, until, pause)
        return int(reached), int(ahead)

    def take_releases(self) -> list[Release]:
        """The coflow lanes released since the last call, by task and tick."""
        count = self._state.counts
        lanes = self._state.released[: count[kernel.RELEASED]].copy()
        count[kernel.RELEASED] = 0
        if not len(lanes):
            return []
        tasks, ticks = self.graph.lane_task[lanes], self._state.start[lanes]
        order = np.lexsort((lanes, ticks, tasks))
        lanes, tasks, ticks = lanes[order], tasks[order], ticks[order]
        cuts = np.flatnonzero((np.diff(tasks) != 0) | (np.diff(ticks) != 0)) + 1
        return [
            (int(tasks[at]), part - self.graph.lane_ptr[tasks[at]], int(ticks[at]))
            for at, part in zip([0, *cuts.tolist()], np.split(lanes, cuts), strict=True)
        ]

    def free_lanes(self, task: int, lanes: Int64s, now: int) -> None:
        """lanes int64[...] of a coflow's task: their own sends and receives are done."""
        kernel.free_lanes(self._program, self._state, lanes + self.graph.lane_ptr[task], now)

    def arrive(self, task: int, lanes: Int64s, now: int) -> None:
        """lanes int64[...] of a coflow's task: all their bytes have landed, all lanes have released."""
        kernel.arrive(self._program, self._state, lanes + self.graph.lane_ptr[task], now)

    def end_coflow(self, task: int, now: int) -> None:
        """Its last port is done."""
        kernel.end_task(self._program, self._state, task, now)

    def set_speed(self, rank: int, factor: float) -> None:
        """A rank computes at `factor` of its speed from now on; ranks the graph does not use are ignored."""
        if rank < len(self._state.speed):
            kernel.set_speed(self._state, rank, factor)

    @property
    def finished(self) -> bool:
        """Whether every task has ended."""
        return not self._state.counts[kernel.UNFINISHED]

    @property
    def start(self) -> Int64s:
        """int64[n] ps, NEVER where a lane has not started."""
        return self._state.start

    @property
    def end(self) -> Int64s:
        """int64[n] ps, NEVER where a lane has not ended."""
        return self._state.end

    @property
    def arrival(self) -> Int64s:
        """int64[n] ps, NEVER where bytes have not all landed."""
        return self._state.arrival

    @property
    def task_end(self) -> Int64s:
        """int64[T] ps, NEVER where a task has not ended."""
        return self._state.task_end

    @property
    def halted_ranks(self) -> list[int]:
        """Ranks of speed 0 that have compute under way."""
        lanes = self._state.slot_lane.reshape(len(self._state.speed), -1)
        computing = (lanes != kernel.IDLE) & (self.graph.coflow[self.graph.lane_task[lanes]] < 0)
        return [int(rank) for rank in np.flatnonzero(computing.any(axis=1) & (self._state.speed == 0))]


def program_of(graph: TaskGraph, speed: Speed) -> kernel.Program:
    bit, table = speed.table(graph.classes)
    is_coflow = graph.coflow >= 0
    following = np.full(graph.num_lanes, kernel.IDLE, dtype=np.int32)
    later = np.flatnonzero(graph.wiring.previous >= 0)
    following[graph.wiring.previous[later]] = later
    to = np.repeat(np.arange(graph.num_tasks, dtype=np.int32), np.diff(graph.edge_ptr))
    by_task = _by_task(graph)
    task_ptr, task_out = _grouped(graph.edge_from[by_task], to[by_task], graph.num_tasks)
    lane_ptr, lane_out = _grouped(*_lane_edges(graph, to, ~by_task), graph.num_lanes)
    return kernel.Program(
        graph.lane_ptr, graph.lane_rank, graph.lane_task, graph.lane_ps, is_coflow, graph.stream, graph.task_class,
        following, lane_ptr, lane_out, task_ptr, task_out, bit, table, max(len(graph.streams), 1),
    )  # fmt: skip


def _by_task(graph: TaskGraph) -> npt.NDArray[np.bool_]:
    """bool[E]: edges that wait for the end of a whole task: GROUP, and LANE on a coflow."""
    lane_on_coflow = (graph.edge_join == 0) & (graph.coflow[graph.edge_from] >= 0)
    return np.asarray((graph.edge_join == GROUP) | lane_on_coflow)


def _lane_edges(graph: TaskGraph, to: Int32s, chosen: npt.NDArray[np.bool_]) -> tuple[Int32s, Int32s]:
    """(earlier lane, waiting lane) of the chosen edges."""
    widths = np.diff(graph.wiring.lane_ptr)
    edge = np.repeat(np.arange(len(to)), widths)
    offset = np.arange(len(edge)) - graph.wiring.lane_ptr[edge]
    waiting = (graph.lane_ptr[to[edge]] + offset).astype(np.int32)
    return graph.wiring.lane[chosen[edge]], waiting[chosen[edge]]


def _grouped(key: Int32s, value: Int32s, count: int) -> tuple[Int64s, Int32s]:
    """CSR: the values of each key, in their order."""
    order = np.argsort(key, kind="stable")
    ptr = np.searchsorted(key[order], np.arange(count + 1)).astype(np.int64)
    return ptr, value[order].astype(np.int32)


def state_of(graph: TaskGraph) -> kernel.State:
    edges = np.repeat(np.diff(graph.edge_ptr), np.diff(graph.lane_ptr))
    waits = (edges + (graph.wiring.previous >= 0)).astype(np.int32)
    ranks, lanes = max(graph.num_ranks, 1), graph.num_lanes
    slots = ranks * max(len(graph.streams), 1)
    width = 1 << max(slots - 1, 1).bit_length()
    return kernel.State(
        waits=waits, ready=np.zeros(lanes, dtype=np.int64), left=np.diff(graph.lane_ptr),
        latest=np.zeros(graph.num_tasks, dtype=np.int64), start=np.full(lanes, NEVER), end=np.full(lanes, NEVER),
        arrival=np.full(lanes, NEVER), task_end=np.full(graph.num_tasks, NEVER),
        slot_lane=np.full(slots, kernel.IDLE, dtype=np.int32), work=np.zeros(slots), rate=np.zeros(slots),
        since=np.zeros(slots, dtype=np.int64), tree=np.full(2 * width, kernel.FOREVER), speed=np.ones(ranks),
        released=np.zeros(lanes, dtype=np.int32), changed=np.zeros(ranks, dtype=np.int32),
        is_changed=np.zeros(ranks, dtype=np.bool_), counts=np.array([0, 0, graph.num_tasks]),
    )  # fmt: skip
