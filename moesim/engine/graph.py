"""TaskGraph: what a step does, without any clock.

A task runs on the ranks of its group; one rank's share of it is a *lane*. Tasks stand in program order: on each rank
and stream their lanes run in that order, one after the other, and every edge points from an earlier task to a later
one. Lane values lie in flat arrays with offsets, never dense [task, all ranks]: 3 million lanes take 36 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.engine.wiring import Wiring, wire
from moesim.network import Coflow
from moesim.units import LAST_SECOND, beyond_clock, to_ps

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


class Join(IntEnum):
    """What an edge waits for. On a coflow LANE and GROUP both wait for the last port of all."""

    LANE = 0  # the same rank's lane of the earlier task
    GROUP = 1  # every lane of the earlier task
    ARRIVAL = 2  # of a coflow: every lane has released its bytes, and all bytes for this rank have landed


class Kind(IntEnum):
    """What a task is."""

    COMPUTE = 0
    COFLOW = 1


@dataclass(frozen=True, eq=False)
class TaskGraph:
    """Columns of T tasks, n lanes and E edges; build it with GraphBuilder, which checks it.

    name T texts; task_class int16[T] -> classes; stream int8[T] -> streams; layer, micro_batch, round int32[T]: labels;
    lanes of task t: lane_ptr int64[T + 1]; lane_rank int32[n]; lane_seconds float64[n] (0 for coflows);
    edges into task t: edge_ptr int64[T + 1]; edge_from int32[E]; edge_join int8[E] (Join);
    coflow int32[T] -> coflows, -1 for compute; lane i of a coflow's task is lane i of the Coflow.
    """

    name: tuple[str, ...]
    task_class: npt.NDArray[np.int16]
    classes: tuple[str, ...]
    stream: npt.NDArray[np.int8]
    streams: tuple[str, ...]
    layer: Int32s
    micro_batch: Int32s
    round: Int32s
    lane_ptr: Int64s
    lane_rank: Int32s
    lane_seconds: npt.NDArray[np.float64]
    edge_ptr: Int64s
    edge_from: Int32s
    edge_join: npt.NDArray[np.int8]
    coflow: Int32s
    coflows: tuple[Coflow, ...]

    @property
    def num_tasks(self) -> int:
        """T."""
        return len(self.name)

    @property
    def num_lanes(self) -> int:
        """n."""
        return len(self.lane_rank)

    @cached_property
    def num_ranks(self) -> int:
        """One more than the highest rank that takes part."""
        return int(self.lane_rank.max(initial=-1)) + 1

    @cached_property
    def kind(self) -> npt.NDArray[np.int8]:
        """int8[T]: Kind of each task."""
        return np.where(self.coflow >= 0, Kind.COFLOW, Kind.COMPUTE).astype(np.int8)

    @cached_property
    def lane_task(self) -> Int32s:
        """int32[n]: the task of each lane."""
        return np.repeat(np.arange(self.num_tasks, dtype=np.int32), np.diff(self.lane_ptr))

    @cached_property
    def lane_ps(self) -> Int64s:
        """int64[n]: lane_seconds in ticks, rounded once. Raises BadInput beyond the clock's range, naming the task."""
        late = np.flatnonzero(self.lane_seconds >= LAST_SECOND)
        if len(late):
            task, seconds = self.describe(int(self.lane_task[late[0]])), self.lane_seconds[late[0]]
            raise beyond_clock(f"{task} takes {seconds:.3g} s on rank {self.lane_rank[late[0]]}")
        return to_ps(self.lane_seconds)

    @cached_property
    def wiring(self) -> Wiring:
        """What each lane follows: see `wiring.wire`."""
        return wire(self.lane_ptr, self.lane_rank, self.stream, self.edge_ptr, self.edge_from, self.edge_join)

    def lanes(self, task: int) -> slice:
        """The lanes of a task."""
        return slice(int(self.lane_ptr[task]), int(self.lane_ptr[task + 1]))

    def lane_of(self, task: int, rank: int) -> int:
        """The lane of a task on a rank. Raises KeyError where the rank takes no part."""
        found = np.flatnonzero(self.lane_rank[self.lanes(task)] == rank)
        if not len(found):
            raise KeyError(f"{self.describe(task)} has no lane on rank {rank}")
        return int(self.lane_ptr[task] + found[0])

    def describe(self, task: int) -> str:
        """Text such as "dispatch (task 12, layer 3)" for messages."""
        layer = f", layer {self.layer[task]}" if self.layer[task] >= 0 else ""
        return f"{self.name[task]} (task {task}{layer})"
