"""step_time: other strategies' placements, played by the simulator on the windows that they were planned on.

Loads and traffic are proxies; which of them matters flips with nodes, overlap and algorithm. So the candidates are
played and the fastest is the answer. The times of all of them are its notes.
"""

from __future__ import annotations

from dataclasses import dataclass

from moesim.errors import BadInput, DoesNotFit
from moesim.placement.budget import Budget
from moesim.placement.clock import StepClock
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer
from moesim.placement.strategies.strategy import Strategy
from moesim.units import show_seconds


@dataclass(frozen=True)
class FastestStep:
    """The finalist with the shortest simulated step."""

    finalists: tuple[Strategy, ...]
    name: str = "step_time"
    summary: str = "the fastest of several strategies' placements, as the simulator plays them"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput without a step to play; finalists that cannot do the problem are left out and named."""
        if problem.clock is None:
            raise BadInput("strategy step_time needs a step to play", way_out="a scenario with model and costs")
        notes = [self._try(one, problem, problem.clock, budget) for one in self.finalists]
        if budget.best is None:
            raise DoesNotFit(f"no finalist of step_time has an answer: {'; '.join(notes)}")
        return Answer(budget.best.placement, notes=tuple(notes))

    @staticmethod
    def _try(finalist: Strategy, problem: PlacementProblem, clock: StepClock, budget: Budget) -> str:
        """Offers the finalist's placement; what came of it in words."""
        if budget.expired and budget.best is not None:
            return f"{finalist.name}: not tried, out of time"
        try:
            placement = finalist.plan(problem, Budget(None, budget.seed, finalist.name)).placement
        except (BadInput, DoesNotFit) as error:
            return f"{finalist.name} left out: {error}"
        seconds = clock.seconds(placement, problem.train)
        budget.offer(placement, seconds)
        return f"{finalist.name}: {show_seconds(seconds)}"
