"""ilp_polish: one layer after the other as a program of its own, its neighbours fixed, from `affinity_bcd`'s answer.

With the neighbours fixed a layer is an assignment with load caps, which a solver settles exactly where exchanges of two
ranks got stuck. It stops when no layer gains, or when the time is up.
"""

from __future__ import annotations

import numpy as np

from moesim.errors import BadInput
from moesim.placement.budget import Budget
from moesim.placement.chain import Chain
from moesim.placement.problem import PlacementProblem
from moesim.placement.search import milp
from moesim.placement.search.programs import layer_program
from moesim.placement.solution import Answer
from moesim.placement.strategies.affinity_bcd import descend
from moesim.placement.strategies.ilp import time_left

EACH = 2.0  # seconds for a layer at most


class IlpPolish:
    """Never worse than `affinity_bcd`."""

    name, summary = "ilp_polish", "affinity_bcd, then each layer as a program with its neighbours fixed"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput for other objectives than moves between layers."""
        if problem.objective.name not in ("transitions", "rail_transitions"):
            raise BadInput(f"ilp_polish has no program for {problem.objective.name}", way_out="objective transitions")
        chain = Chain.of(problem)
        rank = descend(chain, problem, budget)
        value, gained, stuck = chain.cost(rank), True, ""
        while gained and not budget.expired:
            gained = False
            for layer in range(problem.layers):
                program, stands = layer_program(chain, layer, chain.pull(rank, np.array([layer]))[0])
                outcome = milp.solve(program, min(time_left(budget), EACH), stop=lambda: budget.expired)
                stuck = stuck if outcome.optimal else f"layer {layer} not proved: {outcome.remark}"
                if outcome.values is None:
                    continue
                tried = rank.copy()
                tried[layer] = outcome.values[stands].argmax(axis=1)
                now = chain.cost(tried)
                if now < value - 1e-9 and chain.excess(tried) <= chain.excess(rank):
                    rank, value, gained = tried, now, True
                    budget.offer(chain.placement(problem, rank), value)
        return Answer(chain.placement(problem, rank), notes=(stuck,) if stuck else ())
