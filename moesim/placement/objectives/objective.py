"""Objective: what counts as better. Lower is better in every one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement
from moesim.placement.budget import Budget
from moesim.placement.solution import Bound

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows

Floats = npt.NDArray[np.float64]


class Objective(Protocol):
    """One way to judge a placement."""

    @property
    def name(self) -> str:
        """As in a registry."""

    @property
    def unit(self) -> str:
        """What a value counts."""

    def evaluate(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[layers], or [1] where layers do not stand alone; the value of a placement is their mean."""

    def bound(self, problem: PlacementProblem, budget: Budget) -> Bound:
        """A lower bound on the value of any placement on `problem.train`, NO_BOUND where none is known; a weaker one
        where the budget ends."""
