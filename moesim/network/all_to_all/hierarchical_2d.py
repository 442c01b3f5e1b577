"""Hierarchical (2D) all-to-all: inside the node first, so that a GPU holds all rows for a port, then between nodes.

The steps do not overlap: each sends what the one before has put together, one message per GPU of the own node and one
per other node. Nothing is merged; the copies between the steps take SMs. Where every GPU has a port, rows gather at the
GPU on the rail of their destination, and two steps are enough. Where GPUs share a port, one of them gathers for all,
and the GPU that receives hands on what is not its own in a third step. Sources: Tutel, "Adaptive Mixture-of-Experts
at Scale" (2DH all-to-all); HetuMoE (2022), hierarchical all-to-all on nodes with one NIC.
"""

from __future__ import annotations

import numpy as np

from moesim.network.all_to_all.algorithm import AllToAll, Stages
from moesim.network.all_to_all.hops import Matrix, gateways, lands_at
from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class Hierarchical2D(AllToAll):
    """PXN's bytes in two stages, three where GPUs share a port; rows of the own node take part in the first."""

    name = "hierarchical_2d"
    phases = 2

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Inside nodes, between them, and inside again from the GPUs that gather for others."""
        stages = [Flows.between(group, rows * row_bytes) for rows in _steps(group, copies.pairs)]
        return tuple(stages if len(stages[2].bytes) else stages[:2])


def _steps(group: Group, rows: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """rows int64[R, R] -> to the lane that gathers, from it to the lane that gathers there, from that one on."""
    gate, lanes = gateways(group), np.arange(len(rows))
    away = group.node_of_lane[:, None] != group.node_of_lane[None, :]
    leaves = np.where(away, gate[lands_at(group).T], lanes[None, :])  # [a, b]: the lane for b's port in a's node
    arrives = np.where(away, gate[None, :], lanes[None, :])
    inside, along, on = (np.zeros_like(rows) for _ in range(3))
    np.add.at(inside, (lanes[:, None], leaves), rows)
    np.add.at(along, (leaves, arrives), rows * away)
    np.add.at(on, (arrives, lanes[None, :]), rows * away)
    return inside, along, on
