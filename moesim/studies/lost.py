"""Tokens that lost rows to aborted transfers: they have no right result, and are not throughput."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from moesim.engine import Timeline
from moesim.network import Coflow
from moesim.step import Lowered
from moesim.studies.build import Built

Int64s = npt.NDArray[np.int64]
HOME: Mapping[str, str] = {  # tasks that carry rows -> the end of a flow at which its tokens are at home
    "dispatch": "source", "combine": "destination", "combine_backward": "source", "dispatch_backward": "destination",
}  # fmt: skip


def lost_tokens(built: Built, lowered: Lowered, timeline: Timeline) -> int:
    """At most how many tokens of the step lost a row in any of its layers.

    A lost row is a token of the GPU that is its home, and none has more tokens than it was given. Rows that another GPU
    forwards count as tokens of anybody. What is not a row (a piece of a sum) spoils the tokens of all who take part.
    """
    given = np.sum([batch.tokens_of_rank for batch in built.batches], axis=0).astype(np.int64)
    lost, anybody = np.zeros_like(given), 0
    for task, missing in _missing(lowered, timeline).items():
        coflow, name = lowered.graph.coflows[lowered.graph.coflow[task]], lowered.graph.name[task]
        ranks = lowered.graph.lane_rank[lowered.graph.lanes(task)]
        if name not in HOME or built.plan.dispatch.algorithm.gathers:
            lost[ranks] += given[ranks]
            continue
        rows = -(-missing // _row_bytes(built, name))
        own = _at_home(built, coflow, ranks)
        np.add.at(lost, ranks[getattr(coflow, HOME[name])[own]], rows[own])
        anybody += int(rows[~own].sum())
    return min(int(np.minimum(lost, given).sum()) + anybody, int(given.sum()))


def lost_words(lost: int, built: Built) -> str:
    """The warning."""
    tokens = sum(batch.tokens for batch in built.batches)
    return (
        f"faults: at most {lost} of {tokens} tokens lost rows in aborted transfers ({lost / tokens:.1%}) and are not "
        "throughput; the work of their experts is played all the same"
    )


def _missing(lowered: Lowered, timeline: Timeline) -> dict[int, Int64s]:
    """Aborted task -> int64[F] bytes of its flows that never arrived."""
    found = {}
    for task, carried in timeline.carried.items():
        if timeline.status[task] == "aborted":
            coflow = lowered.graph.coflows[lowered.graph.coflow[task]]
            arrived = np.zeros(len(coflow.bytes), dtype=np.int64)
            np.add.at(arrived, carried.flow, carried.bytes)
            found[task] = np.where(coflow.path[:, 0] >= 0, coflow.bytes - arrived, 0)
    return found


def _row_bytes(built: Built, name: str) -> int:
    dispatch = built.plan.dispatch
    if name == "dispatch":
        return dispatch.dispatch_row_bytes + dispatch.algorithm.header_bytes
    return dispatch.combine_row_bytes


def _at_home(built: Built, coflow: Coflow, ranks: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """bool[F]: whether all rows of a flow are of the GPU at its one end."""
    algorithm = built.plan.dispatch.algorithm
    node = built.cluster.node_of[ranks]
    between = node[coflow.source] != node[coflow.destination]
    if algorithm.travels:
        return np.zeros_like(between)
    return between if algorithm.rail_first else np.full_like(between, algorithm.phases == 1)
