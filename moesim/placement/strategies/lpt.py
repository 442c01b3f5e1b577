"""lpt: longest processing time first, then exchanges between pairs of ranks, on the load of all windows together.

Source of the greedy part: Graham, "Bounds on Multiprocessing Timing Anomalies" (1969), with slots and speeds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.placement.bounds import balance
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.replication import replicate
from moesim.placement.search.table import pack
from moesim.placement.solution import Answer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Lpt:
    """Every number of replicas that could be best where there are few, else the greedy one."""

    name, summary = "lpt", "longest processing time first, then exchanges; within 0.2 % of a bound on total load"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """The layers one by one."""
        return Answer(problem.place(np.stack([balanced(problem, row) for row in problem.load.astype(np.float64)])))


def balanced(problem: PlacementProblem, load: Floats) -> Ints:
    """load float64[experts] of one layer -> int64[slots]."""
    spare, most = problem.slots - problem.experts, problem.ranks
    candidates = [replicate(load[None], spare, most, problem.relief)[0]]
    if spare:
        found = balance.replica_choices(problem, load) or []
        candidates += [replicas for replicas in found if replicas.max() <= most]
    packed = [pack(problem, load[:, None], replicas) for replicas in candidates]
    return min(packed, key=lambda table: table.slowest(problem)).slot_expert
