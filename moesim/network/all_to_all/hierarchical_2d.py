"""Hierarchical (2D) all-to-all: inside the node first, so that each GPU holds all rows for its rail, then along rails.

The two steps do not overlap: the second sends what the first has put together, one message per GPU of the own node and
one per other node. Nothing is merged; the copies between the steps take SMs. Source: Tutel, "Adaptive
Mixture-of-Experts at Scale" (2DH all-to-all, which is this); HetuMoE's hierarchical all-to-all has the same two steps
on nodes with one NIC, where one GPU gathers for all.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll, Stages
from moesim.network.all_to_all.hops import gathered
from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class Hierarchical2D(AllToAll):
    """PXN's bytes in two stages; rows of the own node take part in the first."""

    name = "hierarchical_2d"
    phases = 2

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Inside nodes, then between them."""
        inside, along = gathered(group, copies.pairs)
        return Flows.between(group, inside * row_bytes), Flows.between(group, along * row_bytes)
