"""two_resources: each layer takes, of several plans, the one with the least expected max(compute, port).

Balance costs traffic: experts that tokens choose together part ways, so more nodes are touched. Which of the two a
layer can afford differs, and the objective `overlap` prices both. A choice among a few plans a layer cannot overfit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, DoesNotFit
from moesim.placement import objectives
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer
from moesim.placement.strategies.strategy import Strategy


@dataclass(frozen=True)
class TwoResources:
    """The best of the finalists, layer by layer."""

    finalists: tuple[Strategy, ...]
    name: str = "two_resources"
    summary: str = "each layer by the plan with least max(compute, busiest port) as the step prices them"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput without a step to play or tokens."""
        if problem.clock is None or problem.train.tokens is None:
            raise BadInput("strategy two_resources needs a step to play", way_out="tokens, and a model with costs")
        objective, notes = objectives.find("overlap"), list[str]()
        tables, values = list[npt.NDArray[np.int32]](), list[npt.NDArray[np.float64]]()
        for finalist in self.finalists:
            if tables and budget.expired:
                notes.append(f"{finalist.name}: not tried, out of time")
                continue
            try:
                placement = finalist.plan(replace(problem), Budget(None, budget.seed, finalist.name)).placement
            except (BadInput, DoesNotFit) as error:
                notes.append(f"{finalist.name} left out: {error}")
                continue
            tables.append(placement.slot_expert)
            values.append(objective.evaluate(problem, placement, problem.train))
        if not tables:
            raise DoesNotFit(f"no finalist of two_resources has an answer: {'; '.join(notes)}")
        best = np.argmin(np.stack(values), axis=0)
        return Answer(problem.place(np.stack(tables)[best, np.arange(problem.layers)]), notes=tuple(notes))
