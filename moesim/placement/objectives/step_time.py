"""step_time: seconds of a step as the simulator plays it. The winner flips with node count, overlap and drift, so this
is what decides between placements that look alike on paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.objectives.objective import Floats
from moesim.placement.solution import NO_BOUND, Bound

if TYPE_CHECKING:
    from moesim.placement.budget import Budget
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


class StepTime:
    """The problem's clock."""

    name, unit = "step_time", "s"

    def evaluate(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[1] seconds. Raises BadInput without a clock or tokens."""
        if problem.clock is None:
            raise BadInput("the objective step_time needs a step to play", way_out="a scenario with model and costs")
        return np.array([problem.clock.seconds(placement, windows)])

    def bound(self, problem: PlacementProblem, budget: Budget) -> Bound:
        """None is known."""
        return NO_BOUND
