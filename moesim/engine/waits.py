"""What each lane waited for, read off a timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine.wiring import ARRIVAL, GROUP

if TYPE_CHECKING:
    from moesim.engine.graph import TaskGraph
    from moesim.engine.timeline import Timeline


class Waits(NamedTuple):
    """One row per edge and lane of the task it enters: edge, lane that waits, met: when it was met, ps; all int64."""

    edge: npt.NDArray[np.int64]
    lane: npt.NDArray[np.int64]
    met: npt.NDArray[np.int64]


def waits(graph: TaskGraph, timeline: Timeline, task: int | None = None) -> Waits:
    """Of all tasks, or of one."""
    first, last = (0, graph.num_tasks) if task is None else (task, task + 1)
    edges = np.arange(graph.edge_ptr[first], graph.edge_ptr[last])
    to = np.repeat(np.arange(first, last), np.diff(graph.edge_ptr[first : last + 1]))
    widths = (graph.lane_ptr[to + 1] - graph.lane_ptr[to]).astype(np.int64)
    edge = np.repeat(edges, widths)
    offset = np.arange(len(edge)) - np.repeat(np.cumsum(widths) - widths, widths)
    lane = np.repeat(graph.lane_ptr[to], widths) + offset
    return Waits(edge, lane, _met(graph, timeline, edge, offset))


def _met(
    graph: TaskGraph, timeline: Timeline, edge: npt.NDArray[np.int64], offset: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    earlier, join = graph.edge_from[edge], graph.edge_join[edge]
    met = timeline.task_end[earlier].copy()
    own = (join == ARRIVAL) | ((join != GROUP) & (graph.coflow[earlier] < 0))
    met[own] = timeline.arrival[graph.wiring.lane[graph.wiring.lane_ptr[edge[own]] + offset[own]]]
    return met
