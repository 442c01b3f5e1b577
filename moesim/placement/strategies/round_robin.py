"""round_robin: experts dealt to the ranks one by one (vLLM's expert_placement_strategy)."""

from __future__ import annotations

import numpy as np

from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer


class RoundRobin:
    """A rank that is full is passed over."""

    name, summary = "round_robin", "experts dealt to ranks one by one; looks at no load"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Slots in the order of (place within the rank, rank) get the experts in order."""
        within = np.concatenate([np.arange(owned) for owned in problem.slots_of_rank])
        row = np.empty(problem.slots, dtype=np.int64)
        row[np.lexsort((problem.slot_rank, within))] = np.arange(problem.slots) % problem.experts
        return Answer(problem.place(np.tile(row, (problem.layers, 1))))
