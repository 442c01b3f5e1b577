"""lpt: longest processing time first, then exchanges between pairs of ranks, on the load of all windows together.

Source of the greedy part: Graham, "Bounds on Multiprocessing Timing Anomalies" (1969), with slots and speeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.placement import kernels
from moesim.placement.bounds import balance
from moesim.placement.budget import Budget
from moesim.placement.dispatch.ways import slot_shares
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
    candidates = [replicate(load[None], spare, most, problem.relief)[0]]
    if spare:
        candidates += balance.replica_choices(problem, load) or []
    packed = [pack(problem, load[:, None], replicas) for replicas in candidates]
    return min(packed, key=lambda table: table.slowest(problem)).slot_expert


@dataclass(frozen=True)
class Table:
    """A layer while it is searched. of int64[slots]: expert of each item (a replica); slot_item int64[slots], changed
    in place; x float64[slots, W]: load of each item; share float64[slots] of its expert; load float64[ranks, W].
    """

    of: Ints
    slot_item: Ints
    share: Floats
    x: Floats
    load: Floats
    z: float

    @classmethod
    def start(cls, problem: PlacementProblem, slot_expert: Ints, counts: Floats, z: float = 0.0) -> Table:
        """counts float64[experts, W]; item s stands in slot s."""
        owner = problem.slot_rank.astype(np.int64)
        share = slot_shares(slot_expert, owner, problem.node_of_rank, problem.experts, problem.way)
        x = np.ascontiguousarray(counts[slot_expert] * share[:, None])
        load = np.zeros((problem.ranks, counts.shape[1]))
        np.add.at(load, owner, x)
        return cls(slot_expert, np.arange(len(slot_expert)), share, x, load, z)

    @property
    def slot_expert(self) -> Ints:
        """int64[slots]."""
        return self.of[self.slot_item]

    def slowest(self, problem: PlacementProblem) -> float:
        """Time of the slowest rank: mean + z deviations of its load."""
        risk = self.load.mean(axis=1) + self.z * self.load.std(axis=1)
        return float((risk / problem.speed).max())

    def rule(self, problem: PlacementProblem) -> tuple[Ints, Ints, Ints, Ints, Ints, int]:
        """What kernels ask for before the load: items, experts, slots of ranks, nodes, and how replicas share."""
        owner = problem.slot_rank.astype(np.int64)
        return self.slot_item, self.of, problem.ptr, owner, problem.node_of_rank, problem.way


def pack(problem: PlacementProblem, counts: Floats, replicas: Ints, z: float = 0.0) -> Table:
    """counts float64[experts, W], replicas int64[experts] -> a layer whose pairs of ranks cannot be evened out more."""
    share = counts / replicas[:, None]
    weight = share.mean(axis=1) + z * share.std(axis=1)
    order = np.argsort(-weight, kind="stable")
    first = kernels.fill(weight, np.repeat(order, replicas[order]), problem.ptr, problem.speed, problem.apart)
    table = Table.start(problem, first, counts, z)
    kernels.even_out(table.x, *table.rule(problem), table.load, problem.speed, z, PASSES)
    return table
