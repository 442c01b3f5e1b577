"""Hierarchical (2D) all-to-all: inside the node first, so that a GPU holds all rows for a port, then between nodes.

The steps do not overlap: each sends what the one before has put together, one message per GPU of the own node and one
per other node. Nothing is merged; the copies between the steps take SMs. Where every GPU has a port, rows gather at the
GPU on the rail of their destination, and two steps are enough. Where GPUs share a port, one of them gathers for all,
and the GPU that receives hands on what is not its own in a third step. Sources: Tutel, "Adaptive Mixture-of-Experts
at Scale" (2DH all-to-all); HetuMoE (2022), hierarchical all-to-all on nodes with one NIC.
"""

from __future__ import annotations

import numpy as np

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.all_to_all.hops import added_up, gateways, lands_at
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class Hierarchical2D(AllToAll):
    """PXN's bytes in two stages, three where GPUs share a port; rows of the own node take part in the first."""

    name = "hierarchical_2d"
    phases = 2

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Inside nodes, between them, and inside again from the GPUs that gather for others."""
        rows, gate, lanes = copies.pairs, gateways(group), np.arange(len(group.devices))
        away = group.node_of_lane[:, None] != group.node_of_lane[None, :]
        leaves = np.where(away, gate[lands_at(group).T], lanes[None, :])  # [a, b]: the lane for b's port in a's node
        arrives = np.where(away, gate[None, :], lanes[None, :])
        inside = added_up(rows, lanes[:, None], leaves, len(lanes))
        along = added_up(rows * away, leaves, arrives, len(lanes))
        if np.all(gate == lanes):
            return inside, along
        return inside, along, added_up(rows * away, arrives, lanes[None, :], len(lanes))
