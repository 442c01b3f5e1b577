"""Table: one layer while it is searched, and the packing that strategies for balance start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.placement.dispatch.ways import slot_shares
from moesim.placement.search import kernels

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PASSES = 200  # over all pairs of ranks; exchanges end long before
PEAK_PASSES = 50


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

    def peak(self) -> float:
        """Mean over windows of the slowest rank's load; ranks of equal speed."""
        return float(self.load.max(axis=0).mean())

    def lowest(self) -> Floats:
        """float64[W]: what the hottest replica and the fair share leave of each peak; x in fair shares."""
        lowest: Floats = np.maximum(self.x.max(axis=0), self.load.mean(axis=0))
        return lowest

    def copy(self) -> Table:
        """To try something on."""
        return replace(self, slot_item=self.slot_item.copy(), load=self.load.copy())

    def arranged(self, problem: PlacementProblem, slot_item: Ints) -> Table:
        """slot_item int64[slots] of the same items -> a table of its own."""
        load = np.zeros_like(self.load)
        np.add.at(load, problem.slot_rank.astype(np.int64), self.x[slot_item])
        return replace(self, slot_item=slot_item, load=load)

    def take(self, tried: Table) -> None:
        """What was tried on a copy."""
        self.slot_item[:], self.load[:] = tried.slot_item, tried.load

    def lower_peaks(self, problem: PlacementProblem, carried: Floats | None = None, cap: float = np.inf) -> None:
        """Exchanges while the mean peak falls. carried float64[items]: total load, of which no rank may take more time
        than `cap`."""
        total = self.x.sum(axis=1) if carried is None else carried
        kernels.lower_peaks(self.x, *self.rule(problem), self.load, total, cap, 1 / problem.speed, PEAK_PASSES)

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
