"""lpt: longest processing time first, then exchanges between pairs of ranks, on the load of all windows together.

Source of the greedy part: Graham, "Bounds on Multiprocessing Timing Anomalies" (1969), with slots and speeds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.placement import kernels
from moesim.placement.bounds import balance
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.replication import replicate
from moesim.placement.solution import Answer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PASSES = 200  # over all pairs of ranks; exchanges end long before


class Lpt:
    """Every number of replicas that could be best where there are few, else the greedy one."""

    name, summary = "lpt", "longest processing time first, then exchanges; within 0.2 % of a bound on total load"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """The layers one by one."""
        return Answer(problem.place(np.stack([balanced(problem, row) for row in problem.load.astype(np.float64)])))


def balanced(problem: PlacementProblem, load: Floats) -> Ints:
    """load float64[experts] of one layer -> int64[slots]."""
    spare, most = problem.slots - problem.experts, problem.ranks
    candidates = [replicate(load[None], spare, most)[0]]
    if spare:
        candidates += balance.replica_choices(problem, load) or []
    packed = [pack(problem, load[:, None] / replicas[:, None], replicas) for replicas in candidates]
    return min(packed, key=lambda entry: entry[1])[0]


def pack(problem: PlacementProblem, share: Floats, replicas: Ints, z: float = 0.0) -> tuple[Ints, float]:
    """share float64[experts, W] of a replica, replicas int64[experts] -> (int64[slots], time of the slowest rank)."""
    ptr = np.concatenate([[0], np.cumsum(problem.slots_of_rank)])
    weight = share.mean(axis=1) + z * share.std(axis=1)
    order = np.argsort(-weight, kind="stable")
    slot_expert: Ints = kernels.fill(weight, np.repeat(order, replicas[order]), ptr, problem.speed)
    load = rank_load(problem, share, slot_expert)
    kernels.even_out(share, slot_expert, ptr, load, problem.speed, z, PASSES)
    risk = load.mean(axis=1) + z * load.std(axis=1)
    return slot_expert, float((risk / problem.speed).max())


def rank_load(problem: PlacementProblem, share: Floats, slot_expert: Ints) -> Floats:
    """share [experts, W], slot_expert int64[slots] -> float64[ranks, W]."""
    load = np.zeros((problem.ranks, share.shape[1]))
    np.add.at(load, problem.slot_rank, share[slot_expert])
    return load
