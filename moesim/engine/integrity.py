"""Laws that ship in the product: a graph that can run to its end, and a timeline that obeys its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.engine.timeline import NEVER, Timeline
from moesim.engine.waits import waits
from moesim.engine.wiring import ARRIVAL, MISSING
from moesim.errors import BadInput, BrokenInvariant, Deadlock
from moesim.units import LAST_TICK, beyond_clock

if TYPE_CHECKING:
    from moesim.engine.graph import TaskGraph


def check_integrity(graph: TaskGraph) -> None:
    """Every edge points forward and finds its lanes. Raises Deadlock naming a cycle, BadInput naming the tasks."""
    to = np.repeat(np.arange(graph.num_tasks), np.diff(graph.edge_ptr))
    backward = np.flatnonzero(graph.edge_from >= to)
    if len(backward):
        _refuse_backward(graph, int(graph.edge_from[backward[0]]), int(to[backward[0]]))
    on_compute = np.flatnonzero((graph.edge_join == ARRIVAL) & (graph.coflow[graph.edge_from] < 0))
    if len(on_compute):
        earlier, later = graph.edge_from[on_compute[0]], to[on_compute[0]]
        raise BadInput(
            f"{graph.describe(later)} waits for the arrival of {graph.describe(earlier)}, which moves no bytes",
            way_out="join LANE or GROUP",
        )
    missing = np.flatnonzero(graph.wiring.lane == MISSING)
    if len(missing):
        edge = int(np.searchsorted(graph.wiring.lane_ptr, missing[0], side="right")) - 1
        rank = graph.lane_rank[graph.lane_ptr[to[edge]] + missing[0] - graph.wiring.lane_ptr[edge]]
        raise BadInput(
            f"{graph.describe(to[edge])} on rank {rank} waits for its lane of {graph.describe(graph.edge_from[edge])}, "
            "which has none there",
            way_out="join GROUP, or add the rank to the earlier task",
        )


def _refuse_backward(graph: TaskGraph, earlier: int, later: int) -> None:
    """An edge from `earlier` to `later` that points backward in program order: with a path back it is a cycle."""
    path = _path(graph, later, earlier)
    if path:
        chain = " -> ".join(graph.describe(task) for task in [*path, later])
        raise Deadlock(f"tasks wait for each other in a circle: {chain}")
    raise BadInput(
        f"{graph.describe(later)} waits for {graph.describe(earlier)}, which comes later in program order",
        way_out="add the tasks in an order in which every task stands after those it waits for",
    )


def _path(graph: TaskGraph, start: int, goal: int) -> list[int]:
    """Tasks from `start` to `goal` along edges and along the streams of shared ranks; empty where there is none."""
    follows: dict[int, list[int]] = {}
    for task in range(graph.num_tasks):
        for edge in range(graph.edge_ptr[task], graph.edge_ptr[task + 1]):
            follows.setdefault(int(graph.edge_from[edge]), []).append(task)
    for lane, before in enumerate(graph.wiring.previous):
        if before >= 0:
            follows.setdefault(int(graph.lane_task[before]), []).append(int(graph.lane_task[lane]))
    came_from, queue = {start: start}, [start]
    for task in queue:
        for after in follows.get(task, []):
            if after not in came_from:
                came_from[after] = task
                queue.append(after)
    if goal not in came_from:
        return []
    path = [goal]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return path[::-1]


def check_clock(graph: TaskGraph, task_end: npt.NDArray[np.int64]) -> None:
    """task_end int64[T] ps of a graph that was played: compiled players stop at LAST_TICK instead of wrapping around.

    Raises BadInput, naming the first task that got there.
    """
    late = np.flatnonzero(task_end >= LAST_TICK)
    if len(late):
        raise beyond_clock(f"{graph.describe(int(late[0]))} ends too late")


def check_timeline(graph: TaskGraph, timeline: Timeline) -> None:
    """Every task once, no lane before what it waits for, no rank's stream doing two things. Raises BrokenInvariant.

    Lanes that never started are allowed only where a fault stopped the step.
    """
    ran = timeline.end != NEVER
    if len(timeline.start) != graph.num_lanes or (not ran.all() and not timeline.stopped_by):
        raise BrokenInvariant(f"{len(ran) - int(ran.sum())} of {graph.num_lanes} lanes did not run")
    _expect(graph, (timeline.start >= timeline.origin)[ran].all(), "a lane starts before its step")
    _expect(graph, (timeline.end >= timeline.start)[ran].all(), "a lane ends before it starts")
    task_end = timeline.task_end[graph.lane_task]
    late = (task_end >= timeline.end) | (task_end == NEVER)
    _expect(graph, late[ran].all(), "a task ends before one of its lanes")
    previous = graph.wiring.previous
    follows = ran & (previous >= 0)
    started = timeline.start[follows] >= timeline.end[previous[follows]]
    _expect(graph, started.all(), "a stream does two things at once")
    edges = waits(graph, timeline)
    early = (timeline.start[edges.lane] < edges.met) | (edges.met == NEVER)
    _expect(graph, not np.any(ran[edges.lane] & early), "a lane starts before an edge is met")


def _expect(graph: TaskGraph, holds: bool | np.bool_, what: str) -> None:
    if not holds:
        raise BrokenInvariant(f"{what} in a graph of {graph.num_tasks} tasks")
