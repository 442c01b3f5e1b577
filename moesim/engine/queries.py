"""Questions to a timeline: who was busy with what, where streams stood idle, which links were hot when."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine.graph import TaskGraph
from moesim.engine.timeline import NEVER, Timeline
from moesim.units import from_ps

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def busy_seconds(graph: TaskGraph, timeline: Timeline) -> Floats:
    """float64[ranks, classes] s: how long lanes of each class ran on each rank; coflows: held its stream."""
    busy = np.zeros((graph.num_ranks, len(graph.classes)), dtype=np.int64)
    np.add.at(busy, (timeline.rank, graph.task_class[timeline.task]), _lasted(timeline))
    return from_ps(busy)


class Gaps(NamedTuple):
    """Idle stretches: rank int32[k], stream int8[k]; start, end int64[k] ps; before int64[k]: lane that ended each."""

    rank: npt.NDArray[np.int32]
    stream: npt.NDArray[np.int8]
    start: Int64s
    end: Int64s
    before: Int64s


def stream_gaps(graph: TaskGraph, timeline: Timeline) -> Gaps:
    """Where a rank's stream stood idle ahead of a lane, from submission on; rows in the order of the lanes."""
    previous = graph.wiring.previous
    free = np.where(previous >= 0, timeline.end[previous], timeline.origin)
    lanes = np.flatnonzero((timeline.start > free) & (free != NEVER))
    stream = graph.stream[timeline.task[lanes]]
    return Gaps(timeline.rank[lanes], stream, free[lanes], timeline.start[lanes], lanes)


def link_heat(timeline: Timeline, bins: int, capacity: Floats) -> Floats:
    """capacity float64[L] B/s -> float64[L, bins]: utilisation of each link in `bins` equal parts of the step.

    Each coflow's bytes are spread evenly over its stretch on the link; where that adds up to more than the link can
    carry it was full.
    """
    edges = timeline.origin + np.linspace(0, max(timeline.step_ps, 1), bins + 1)
    rows = timeline.transfers
    heat = np.zeros((timeline.num_links, bins))
    length = np.maximum(rows.end - rows.start, 1)
    for part in range(bins):
        inside = np.clip(np.minimum(rows.end, edges[part + 1]) - np.maximum(rows.start, edges[part]), 0, None)
        np.add.at(heat[:, part], rows.link, rows.bytes * inside / length)
    seconds = (edges[1] - edges[0]) * 1e-12
    moved = np.divide(heat, capacity[:, None] * seconds, out=np.zeros_like(heat), where=capacity[:, None] > 0)
    return np.asarray(np.minimum(moved, 1.0), dtype=np.float64)


def _lasted(timeline: Timeline) -> Int64s:
    """int64[n] ticks; 0 for lanes that did not end."""
    return np.where(timeline.end == NEVER, 0, timeline.end - timeline.start)
