"""`evaluate`: the fast player. One compiled pass over the tasks in program order; coflows take their port-load time.

A lane starts when the lane before it on its stream is done and all its edges are met, and edges point forward, so every
start is known when the pass reaches it. What this ignores is that coflows under way at the same time share links;
it is counted in `Timeline.ignored_overlap_s`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.engine.graph import TaskGraph
from moesim.engine.integrity import check_clock, check_integrity
from moesim.engine.ports import PortTimes
from moesim.engine.speed import Speed
from moesim.engine.timeline import Timeline, Transfers, overlap_seconds
from moesim.engine.transfers import TransferLog
from moesim.engine.wiring import ARRIVAL, GROUP
from moesim.errors import unknown_name
from moesim.units import LAST_TICK

LEVELS = ("none", "port_load")


def evaluate(
    graph: TaskGraph,
    capacity: npt.NDArray[np.float64],
    *,
    network: str = "port_load",
    barrier: bool = False,
    speed: Speed | None = None,
    link_name: Sequence[str] = (),
) -> Timeline:
    """graph, capacity float64[L] B/s -> Timeline. Raises BadInput, Deadlock. link_name: L names, for messages.

    network "none": bytes take no time, waiting for one another stays. barrier: a coflow's bytes start when its last
    lane has released. speed: how running classes slow each other; then lanes are played event by event.
    """
    if network not in LEVELS:
        raise unknown_name("network level of evaluate", network, LEVELS)
    check_integrity(graph)
    if speed is not None and not speed.trivial:
        return _with_interference(graph, capacity, network, barrier, speed, link_name)
    return _Pass(graph, capacity, network, barrier, link_name).run()


def _with_interference(
    graph: TaskGraph, capacity: npt.NDArray[np.float64], network: str, barrier: bool, speed: Speed,
    link_name: Sequence[str],
) -> Timeline:  # fmt: skip
    """Starts and ends depend on what else runs then, so lanes are played event by event; coflows as in the pass."""
    from moesim.engine.simulate import simulate  # simpy is needed only here

    timeline = simulate(graph, capacity, network=network, barrier=barrier, speed=speed, link_name=link_name)
    overlap = overlap_seconds(timeline.transfers, len(capacity)) if network == "port_load" else 0.0
    return replace(timeline, player="evaluate", ignored_overlap_s=overlap)


class _Pass:
    """The arrays of one evaluation."""

    def __init__(
        self, graph: TaskGraph, capacity: npt.NDArray[np.float64], network: str, barrier: bool, link_name: Sequence[str]
    ) -> None:
        self.graph, self.network, self.barrier = graph, network, barrier
        self.ports = PortTimes(capacity, network, link_name)
        self.start = np.zeros(graph.num_lanes, dtype=np.int64)
        self.end, self.arrival = self.start.copy(), self.start.copy()
        self.task_end = np.zeros(graph.num_tasks, dtype=np.int64)
        self.recorder = TransferLog()

    def run(self) -> Timeline:
        """Compute tasks in compiled stretches, coflows one by one between them."""
        first = 0
        for task in np.flatnonzero(self.graph.coflow >= 0).tolist():
            self._sweep(first, task + 1)
            self._play_coflow(task)
            first = task + 1
        self._sweep(first, self.graph.num_tasks)
        check_clock(self.graph, self.task_end)
        transfers = self.recorder.transfers()
        return self._timeline(transfers)

    def _sweep(self, first: int, last: int) -> None:
        graph, wiring = self.graph, self.graph.wiring
        sweep(
            first, last, graph.lane_ptr, graph.lane_ps, graph.edge_ptr, graph.edge_from, graph.edge_join, graph.coflow,
            wiring.previous, wiring.lane_ptr, wiring.lane, self.start, self.end, self.arrival, self.task_end,
        )  # fmt: skip

    def _play_coflow(self, task: int) -> None:
        lanes = self.graph.lanes(task)
        coflow = self.graph.coflows[self.graph.coflow[task]]
        release = self.start[lanes]
        if self.barrier:
            release = np.full_like(release, release.max())
        end, spans = self.ports.play(coflow, release, self.end[lanes], self.arrival[lanes], self.graph.describe(task))
        self.task_end[task] = end
        self.recorder.add(task, spans)

    def _timeline(self, transfers: Transfers) -> Timeline:
        graph, links = self.graph, self.ports.num_links
        return Timeline(
            player="evaluate", network=self.network, origin=0, task=graph.lane_task, rank=graph.lane_rank,
            start=self.start, end=self.end, arrival=self.arrival, task_end=self.task_end,
            status=("done",) * graph.num_tasks, transfers=transfers, num_links=links,
            ignored_overlap_s=overlap_seconds(transfers, links) if self.network == "port_load" else 0.0,
            links_end=self.ports.links_end(transfers),
        )  # fmt: skip


@njit
def sweep(
    first: Any,
    last: Any,
    lane_ptr: Any,
    duration: Any,
    edge_ptr: Any,
    edge_from: Any,
    edge_join: Any,
    coflow: Any,
    previous: Any,
    wire_ptr: Any,
    wire: Any,
    start: Any,
    end: Any,
    arrival: Any,
    task_end: Any,
) -> None:
    """Start of every lane of tasks first..last - 1; their ends too, except that coflow lanes end where they start."""
    for task in range(first, last):
        begin, stop = lane_ptr[task], lane_ptr[task + 1]
        for lane in range(begin, stop):
            start[lane] = end[previous[lane]] if previous[lane] >= 0 else 0
        for edge in range(edge_ptr[task], edge_ptr[task + 1]):
            earlier, join = edge_from[edge], edge_join[edge]
            for lane in range(begin, stop):
                if join == GROUP or (join != ARRIVAL and coflow[earlier] >= 0):
                    met = task_end[earlier]
                else:
                    met = arrival[wire[wire_ptr[edge] + lane - begin]]
                start[lane] = max(start[lane], met)
        latest = np.int64(0)
        for lane in range(begin, stop):
            end[lane] = min(start[lane] + duration[lane], LAST_TICK)
            arrival[lane] = end[lane]
            latest = max(latest, end[lane])
        task_end[task] = latest
