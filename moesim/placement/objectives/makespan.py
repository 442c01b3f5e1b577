"""makespan: the slowest rank over the mean, expected over windows. One window of the totals gives plain balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.layout import Placement
from moesim.placement.bounds import balance
from moesim.placement.loads import imbalance
from moesim.placement.objectives.objective import Floats
from moesim.placement.solution import Bound

if TYPE_CHECKING:
    from moesim.placement.budget import Budget
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


class Makespan:
    """Mean over windows of max over ranks."""

    name, unit = "makespan", "max/mean"

    def evaluate(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[layers]."""
        result: Floats = imbalance(problem, placement, windows).mean(axis=0)
        return result

    def bound(self, problem: PlacementProblem, budget: Budget) -> Bound:
        """Each window's own bound, and what the peaks of all of them ask of the same replicas."""
        return Bound(float(balance.joint(problem, budget).mean()), "combinatorial")
