"""contiguous: experts in their own order, the redundant slots of a rank filled with the experts after its own."""

from __future__ import annotations

import numpy as np

from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer


class Contiguous:
    """As engines load checkpoints by default."""

    name, summary = "contiguous", "experts in order, as engines load checkpoints; looks at no load"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Slot s holds expert s modulo experts."""
        row = np.arange(problem.slots) % problem.experts
        return Answer(problem.place(np.tile(row, (problem.layers, 1))))
