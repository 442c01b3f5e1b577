"""random: each layer's experts in a random order; what any strategy has to beat."""

from __future__ import annotations

import numpy as np

from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer


class Random:
    """A permutation a layer, redundant slots from a second one."""

    name, summary = "random", "a random order in each layer"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Drawn from the seed's own stream."""
        random, rounds = budget.stream(), -(-problem.slots // problem.experts)
        rows = []
        for _ in range(problem.layers):
            experts = np.concatenate([random.permutation(problem.experts) for _ in range(rounds)])
            rows.append(random.permutation(experts[: problem.slots]))
        return Answer(problem.place(np.stack(rows)))
