"""How far two ranks are apart: what a move between them costs, counted in hops.

One hop inside a node and two between nodes, as ExFlow counts them (YJHMITWEB/ExFlow, solve_affinity.py). With rails, a
move to a GPU of another node on another rail takes an NVLink hop as well: three.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def rail_of_rank(node_of_rank: Ints) -> Ints:
    """int[ranks] node -> int64[ranks]: the place of each rank within its node: its rail, where rails are wired."""
    rail = np.empty(len(node_of_rank), dtype=np.int64)
    for node in np.unique(node_of_rank):
        members = np.flatnonzero(node_of_rank == node)
        rail[members] = np.arange(len(members))
    return rail


def hops(node_of_rank: Ints, rails: bool = False) -> Floats:
    """int[ranks] -> float64[ranks, ranks] hops of a move, 0 on the diagonal."""
    rank = np.arange(len(node_of_rank))
    away = node_of_rank[:, None] != node_of_rank[None, :]
    distance: Floats = (rank[:, None] != rank[None, :]).astype(np.float64) + away
    if rails:
        rail = rail_of_rank(node_of_rank)
        distance += away & (rail[:, None] != rail[None, :])
    return distance
