"""transitions: hops of a token from its experts in one layer to its experts in the next, mean over moves.

ExFlow's cost: one hop to another GPU of the node, two to another node. On one node it is the share of moves that leave
the GPU.

rail_transitions: the same where a move to another rail of another node takes one hop more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moesim.layout import Placement
from moesim.placement.bounds import transitions
from moesim.placement.levels import hops
from moesim.placement.moves import held
from moesim.placement.objectives.objective import Floats
from moesim.placement.solution import Bound

if TYPE_CHECKING:
    from moesim.placement.budget import Budget
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


@dataclass(frozen=True)
class Transitions:
    """Replicas of the two experts are drawn independently by the dispatch rule's shares (a rule that looks at the batch
    counts with its mean shares); under `nearest` the token goes to the replica that is nearest to where it is.
    """

    name: str = "transitions"
    rails: bool = False
    unit: str = "hops a move"

    def evaluate(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[layers - 1], of which layers with more moves count more. Raises BadInput where windows are counts."""
        flow, distance = windows.flow, hops(problem.node_of_rank, self.rails)
        here = rank_shares(problem, placement, windows)
        reach = _nearest(placement, distance) if problem.dispatch.name == "nearest" else distance @ here
        expected = (here[:-1].transpose(0, 2, 1) @ reach[1:] * flow).sum(axis=(1, 2))
        result: Floats = expected / max(flow.sum() / max(len(flow), 1), 1.0)
        return result if len(result) else np.zeros(1)

    def bound(self, problem: PlacementProblem, budget: Budget) -> Bound:
        """Levels add up: hops are at least the share of moves that leave a GPU plus the share that leave a node."""
        return transitions.bound(problem)


def rank_shares(problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
    """float64[layers, ranks, experts]: the share of an expert's tokens that each rank takes."""
    shares = problem.dispatch.shares(problem, placement, windows).mean(axis=0)
    result = np.zeros((placement.num_layers, placement.num_ranks, placement.num_experts))
    layer = np.arange(placement.num_layers)[:, None]
    there = placement.filled
    rows = np.broadcast_to(layer, there.shape)[there]
    np.add.at(result, (rows, placement.slot_rank[there], placement.slot_expert[there]), shares[there])
    return result


def _nearest(placement: Placement, distance: Floats) -> Floats:
    """float64[layers, ranks, experts]: hops from a rank to the nearest replica of an expert."""
    away = np.where(held(placement) > 0, 0.0, np.inf)  # [layers, ranks, experts]
    return np.stack([(distance[:, :, None] + layer).min(axis=1) for layer in away])
