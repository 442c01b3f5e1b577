"""Which lane waits for which: worked out once per graph, used by every player and every check."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit

LANE, GROUP, ARRIVAL = 0, 1, 2  # graph.Join as plain integers, for compiled code
MISSING = -1


class Wiring(NamedTuple):
    """previous int32[n]: the lane before each lane on the same rank and stream, -1 for the first.

    lane_ptr int64[E + 1], lane int32[...]: for an edge with join LANE or ARRIVAL the lane it waits for, one for each
    lane of the task it enters, -1 where that rank takes no part in the earlier task; empty for GROUP.
    """

    previous: npt.NDArray[np.int32]
    lane_ptr: npt.NDArray[np.int64]
    lane: npt.NDArray[np.int32]


def wire(lane_ptr: Any, lane_rank: Any, stream: Any, edge_ptr: Any, edge_from: Any, edge_join: Any) -> Wiring:
    """The columns of a TaskGraph -> Wiring. Edges that point backward are wired too; `check_integrity` refuses them."""
    widths = np.repeat(np.diff(lane_ptr), np.diff(edge_ptr))
    widths[np.asarray(edge_join) == GROUP] = 0
    ptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(widths, dtype=np.int64)))
    source = np.full(int(ptr[-1]), MISSING, dtype=np.int32)
    ranks, streams = int(lane_rank.max(initial=-1)) + 1, int(stream.max(initial=-1)) + 1
    _edge_lanes(lane_ptr, lane_rank, edge_ptr, edge_from, ptr, source, np.full(ranks, MISSING, dtype=np.int64))
    previous = np.empty(len(lane_rank), dtype=np.int32)
    _previous(lane_ptr, lane_rank, stream, np.full((ranks, streams), MISSING, dtype=np.int32), previous)
    return Wiring(previous, ptr, source)


@njit
def _edge_lanes(
    lane_ptr: Any, lane_rank: Any, edge_ptr: Any, edge_from: Any, ptr: Any, source: Any, lane_at: Any
) -> None:
    """`lane_at` int64[ranks], all MISSING before and after: the earlier task's lane on each rank."""
    for task in range(edge_ptr.shape[0] - 1):
        for edge in range(edge_ptr[task], edge_ptr[task + 1]):
            if ptr[edge + 1] == ptr[edge]:
                continue
            earlier = edge_from[edge]
            for lane in range(lane_ptr[earlier], lane_ptr[earlier + 1]):
                lane_at[lane_rank[lane]] = lane
            for index in range(lane_ptr[task + 1] - lane_ptr[task]):
                source[ptr[edge] + index] = lane_at[lane_rank[lane_ptr[task] + index]]
            for lane in range(lane_ptr[earlier], lane_ptr[earlier + 1]):
                lane_at[lane_rank[lane]] = MISSING


@njit
def _previous(lane_ptr: Any, lane_rank: Any, stream: Any, last: Any, previous: Any) -> None:
    for task in range(lane_ptr.shape[0] - 1):
        for lane in range(lane_ptr[task], lane_ptr[task + 1]):
            rank = lane_rank[lane]
            previous[lane] = last[rank, stream[task]]
            last[rank, stream[task]] = lane
