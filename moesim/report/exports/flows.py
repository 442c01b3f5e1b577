"""Flows of a step for packet simulators (htsim, ns-3, SimAI read such lists): when, from whom, to whom, how much.

The stored scenario is played again, as rows of flows are not kept. A flow starts when its GPU has released it in the
run, plus the collective's start-up; how long it takes is what the packet simulator is asked.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

import numpy as np

from moesim.engine import TaskGraph, Timeline
from moesim.report.exports.again import played_again
from moesim.report.stored import StoredRun

Flow = tuple[float, int, int, int, str, int]
HEADER: Final = ("start_ns", "src", "dst", "bytes", "task", "layer")
NANOSECOND: Final = 1_000  # ps


def made(run: StoredRun) -> bytes:
    """CSV, earliest flow first. Raises BadInput where the scenario does not play as it did."""
    played = played_again(run)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    graph, timeline = played.graph, played.timeline
    tasks = np.flatnonzero(graph.coflow >= 0).tolist()
    rows: list[Flow] = sorted((row for task in tasks for row in _flows(graph, timeline, task)), key=itemgetter(0))
    writer.writerows(rows)
    return stream.getvalue().encode()


def _flows(graph: TaskGraph, timeline: Timeline, task: int) -> Iterator[Flow]:
    """Of one collective, those that carry bytes."""
    coflow, begun = graph.coflows[graph.coflow[task]], int(graph.lane_ptr[task])
    ranks = graph.lane_rank[begun : begun + coflow.lanes]
    owner = np.repeat(np.arange(coflow.lanes), np.diff(coflow.owner_ptr))
    released = np.asarray(timeline.start[begun : begun + coflow.lanes], dtype=np.float64)
    start = released[owner] / NANOSECOND + coflow.alpha * 1e9
    source, target = ranks[coflow.source], ranks[coflow.destination]
    for flow in np.flatnonzero(coflow.bytes > 0).tolist():
        size = int(coflow.bytes[flow])
        at = round(float(start[flow]), 3)
        yield at, int(source[flow]), int(target[flow]), size, graph.name[task], int(graph.layer[task])
