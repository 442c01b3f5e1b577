"""affinity_hungarian: clusters of even load in each layer, then clusters to ranks so that fewest moves cross.

The two stages of MoETuner (arXiv 2502.06643) in this order, each by a fast method: stage 1 looks at load alone, stage 2
at the moves between the clusters that stage 1 made.
"""

from __future__ import annotations

from moesim.placement.budget import Budget
from moesim.placement.chain import Chain
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.clusters import aligned, balanced
from moesim.placement.solution import Answer


class AffinityHungarian:
    """LPT, then the Hungarian method along the layers."""

    name, summary = "affinity_hungarian", "balanced clusters, then their best assignment along the layers (MoETuner)"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput where windows are counts only."""
        chain = Chain.of(problem)
        rank = aligned(chain, balanced(chain.load, chain.room, chain.cap))
        return Answer(chain.placement(problem, rank))
