"""Strategy: one way to a placement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from moesim.placement.budget import Budget
from moesim.placement.solution import Answer

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem


class Strategy(Protocol):
    """`solve` judges what it returns; a strategy may say what it proved and what the user must know."""

    @property
    def name(self) -> str:
        """As in a registry."""

    @property
    def summary(self) -> str:
        """One line for `moesim list`."""

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """A placement within the slots of the problem. Raises DoesNotFit, or BadInput for what it cannot do."""
