"""Capacity: how many rows an expert takes from a rank, who gets the places, and what empty places cost.

A rank fills the places that its own tokens have at each expert, as GShard's groups do (arXiv 2006.16668, section 3.1)
and Megatron-LM and DeepSpeed still do; tokens without ranks are one group.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.input import Ints, RouterInput

Factor = Annotated[float, Field(gt=0, le=1e6, description="places over an even share of the rows")]


def places(given: RouterInput, factor: float, k: int = 1, experts: int | None = None) -> Ints:
    """int64[R]: places of a rank's tokens at each expert, ceil(factor k T / E)."""
    tokens = np.bincount(given.rank, minlength=len(given.rank_node))
    return even_places(k * tokens, factor, experts or given.experts)


def even_places(rows: npt.ArrayLike, factor: float, experts: int) -> Ints:
    """int64[...] rows -> int64[...]: `factor` times an even share of them, rounded up."""
    found: Ints = np.ceil(np.round(factor * np.asarray(rows) / experts, 9)).astype(np.int64)
    return found


def limited(
    assignment: Assignment, limit: npt.NDArray[Any], priority: npt.NDArray[Any] | None = None
) -> Assignment:  # fmt: skip
    """Rows beyond their places become DROPPED; `priority` [rows]: lowest first, then in token order.

    `limit` int64[R] is that of every expert, int64[R, ids] that of each id, zero-compute ones included.
    """
    ids = limit.shape[1] if limit.ndim == 2 else assignment.experts
    kept = np.flatnonzero(np.isin(assignment.status, (Status.KEPT, Status.NULL)) & (assignment.expert < ids))
    cell = (assignment.rank[assignment.token] * ids + assignment.expert)[kept]
    place = place_within(cell, None if priority is None else priority[kept])
    table = np.broadcast_to(limit if limit.ndim == 2 else limit[:, None], (len(limit), ids))
    status = assignment.status.copy()
    status[kept[place >= table.reshape(-1)[cell]]] = Status.DROPPED
    return assignment.with_status(status)


def place_within(cell: Ints, priority: npt.NDArray[Any] | None = None) -> Ints:
    """int64[n] cells -> int64[n]: the place of each in its cell, by priority, then by order."""
    order = np.argsort(cell, kind="stable") if priority is None else np.lexsort((priority, cell))
    counted = np.bincount(cell)
    first = np.cumsum(counted) - counted
    place = np.empty(len(cell), dtype=np.int64)
    place[order] = np.arange(len(cell)) - first[cell[order]]
    return place


def padded(assignment: Assignment, limit: Ints) -> Assignment:
    """Empty places become PAD rows: each a unit of its own on the rank that would have filled it."""
    free = free_places(assignment, limit)
    rank, expert = (np.repeat(axis, free.ravel()) for axis in np.divmod(np.arange(free.size), free.shape[1]))
    more = len(expert)
    unit = assignment.units + np.arange(more)
    zeros = np.zeros(more, dtype=np.uint8)
    return replace(
        assignment,
        rank=np.concatenate([assignment.rank, rank]),
        owner=np.concatenate([assignment.owner, np.zeros(more, dtype=np.int64)]),
        token=np.concatenate([assignment.token, unit]),
        expert=np.concatenate([assignment.expert, expert]),
        weight=np.concatenate([assignment.weight, zeros.astype(np.float32)]),
        choice=np.concatenate([assignment.choice, zeros]),
        round=np.concatenate([assignment.round, zeros]),
        status=np.concatenate([assignment.status, zeros + np.uint8(Status.PAD)]),
    )


def free_places(assignment: Assignment, limit: Ints) -> Ints:
    """limit int64[R] -> int64[R, experts]: places that no row has taken, zero-compute and rectified rows apart."""
    taken = np.isin(assignment.status, (Status.KEPT, Status.FILLED)) & (assignment.expert < assignment.experts)
    cell = (assignment.rank[assignment.token] * assignment.experts + assignment.expert)[taken]
    used = np.bincount(cell, minlength=len(limit) * assignment.experts).reshape(len(limit), -1)
    free: Ints = np.maximum(limit[:, None] - used, 0)
    return free
