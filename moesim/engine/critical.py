"""The critical path: the chain of lanes, each of which started the moment the one before it let it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.engine.graph import Join, TaskGraph
from moesim.engine.timeline import Timeline
from moesim.engine.waits import waits
from moesim.units import from_ps

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CriticalPath:
    """lane int64[k], earliest first; start, end int64[k] ps: the stretch in which each bound the step. Stretches follow
    one another without gaps and add up to the step, a wait for the submission's own origin aside.
    """

    lane: Int64s
    start: Int64s
    end: Int64s

    def seconds_by_class(self, graph: TaskGraph) -> dict[str, float]:
        """Class -> seconds of the step that it bound."""
        seconds = np.zeros(len(graph.classes))
        np.add.at(seconds, graph.task_class[graph.lane_task[self.lane]], from_ps(self.end - self.start))
        return dict(zip(graph.classes, seconds.tolist(), strict=True))


def critical_path(graph: TaskGraph, timeline: Timeline) -> CriticalPath:
    """Walk back from the last end. Of equals the lane before on the stream is taken, then the first edge.

    A coflow bounds what follows from the release of its last lane on: earlier bytes had to wait for nobody.
    """
    rows: list[tuple[int, int, int]] = []
    end = int(timeline.task_end.max(initial=timeline.origin))
    lane = _last_lane(graph, timeline, int(timeline.task_end.argmax()), end) if graph.num_tasks else -1
    while lane >= 0:
        start = int(timeline.start[lane])
        rows.append((lane, start, end))
        lane, end = _cause(graph, timeline, lane), start
    lanes, starts, ends = np.array(rows[::-1], dtype=np.int64).reshape(-1, 3).T
    return CriticalPath(lanes, starts, ends)


def _cause(graph: TaskGraph, timeline: Timeline, lane: int) -> int:
    """The lane that let this one start; -1 where nothing did."""
    start, task = int(timeline.start[lane]), int(graph.lane_task[lane])
    previous = int(graph.wiring.previous[lane])
    if previous >= 0 and timeline.end[previous] == start:
        return _last_lane(graph, timeline, int(graph.lane_task[previous]), start, previous)
    edges = waits(graph, timeline, task)
    met = np.flatnonzero((edges.lane == lane) & (edges.met == start))
    if not len(met):
        return -1
    edge = int(edges.edge[met[0]])
    earlier, own = int(graph.edge_from[edge]), -1
    if graph.edge_join[edge] == Join.LANE:
        own = int(graph.wiring.lane[graph.wiring.lane_ptr[edge] + lane - graph.lane_ptr[task]])
    return _last_lane(graph, timeline, earlier, start, own)


def _last_lane(graph: TaskGraph, timeline: Timeline, task: int, by: int, own: int = -1) -> int:
    """Of a compute task the lane `own`, or the last to end; of a coflow the last to release by tick `by`."""
    lanes = graph.lanes(task)
    if graph.coflow[task] < 0:
        return own if own >= 0 else int(lanes.start + np.argmax(timeline.end[lanes]))
    released = timeline.start[lanes]
    return int(lanes.start + np.argmax(np.where(released <= by, released, -1)))
