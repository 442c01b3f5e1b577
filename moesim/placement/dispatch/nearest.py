"""A token takes a replica on its own rank, else one in its own node, else any; equals share evenly.

Tokens are taken to start evenly on all ranks, as under data-parallel attention. Source: SGLang's dynamic dispatch and
omni-infer prefer near replicas in this order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.layout import Placement
from moesim.placement.dispatch.rule import Floats
from moesim.placement.moves import held

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


class Nearest:
    """Own rank, own node, anywhere."""

    name = "nearest"

    def shares(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[1, layers, slots]."""
        node_of, nodes = problem.node_of_rank, problem.nodes
        here = held(placement).astype(np.float64)  # [layers, ranks, experts]
        in_node = np.zeros((placement.num_layers, nodes, placement.num_experts))
        without = np.zeros_like(in_node)  # ranks of the node that hold no replica themselves
        for rank, node in enumerate(node_of):
            in_node[:, node] += here[:, rank]
            without[:, node] += here[:, rank] == 0
        homeless = np.where(in_node == 0, without, 0).sum(axis=1)  # ranks whose node holds none
        per_slot = homeless[:, None] / in_node.sum(axis=1, keepdims=True)
        per_slot = per_slot + without / np.maximum(in_node, 1)
        share = (per_slot[:, node_of] + 1 / np.maximum(here, 1)) / problem.ranks  # a slot's, [layers, ranks, experts]
        layer = np.arange(placement.num_layers)[:, None]
        result: Floats = share[layer, placement.slot_rank, placement.slot_expert][None]
        return result
