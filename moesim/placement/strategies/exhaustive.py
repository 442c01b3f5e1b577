"""exhaustive: small models solved to optimality: every number of replicas, and every way to deal them where few.

Numbers of replicas are tried in the order of a lower bound (no rank is faster than a replica of its hottest expert, or
than a fair share) and the rest is left once that bound reaches the best found. Where the ways to deal are too many, the
packing and exchanges of `multiwindow` settle a number, and the answer is not called proved.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.errors import DoesNotFit
from moesim.placement.budget import Budget
from moesim.placement.dispatch.ways import EVEN
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.partitions import deals, how_many
from moesim.placement.search.replication import choices
from moesim.placement.search.table import pack
from moesim.placement.solution import NO_BOUND, Answer, Bound

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SMALL = 16  # experts
CHOICES, DEALINGS = 20_000, 3_000


class Exhaustive:
    """For up to SMALL experts and even shares."""

    name, summary = "exhaustive", "small models: every number of replicas, every dealing where there are few"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises DoesNotFit for larger models and for dispatch that looks at places."""
        ones = np.ones(problem.experts, dtype=np.int64)
        small = problem.experts <= SMALL and problem.way == EVEN and problem.load_cap is None
        numbers = choices(ones, problem.slots, CHOICES) if small else None
        if numbers is None or not numbers:
            raise DoesNotFit("exhaustive is for a few experts, slots and even shares", way_out="strategy multiwindow")
        rows, values, proved = [], [], problem.dispatch.name == "even" and problem.objective.name == "makespan"
        for layer in range(problem.layers):
            row, value, sure = _layer(problem, layer, np.stack(numbers), budget)
            rows.append(row)
            values.append(value)
            proved &= sure
        bound = Bound(float(np.mean(values)), "every way was tried") if proved else NO_BOUND
        return Answer(problem.place(np.stack(rows)), bound)


def _layer(problem: PlacementProblem, layer: int, numbers: Ints, budget: Budget) -> tuple[Ints, float, bool]:
    """numbers int64[N, experts] -> (int64[slots], mean over windows of max/mean, whether it is the least there is)."""
    counts = problem.train.counts[:, layer].astype(np.float64)
    counts = counts[counts.sum(axis=1) > 0]
    if not len(counts):
        counts = np.ones((1, problem.experts))
    fair = counts.sum(axis=1, keepdims=True) / problem.speed.sum()
    counts = np.ascontiguousarray((counts / fair).T)  # [experts, W]
    fastest = problem.speed.max()
    hottest = (counts[None] / numbers[:, :, None]).max(axis=1) / fastest  # [N, W]
    floor = np.maximum(hottest, 1.0).mean(axis=1)
    best, found, sure = np.inf, np.empty(0, dtype=np.int64), True
    for index in np.argsort(floor, kind="stable"):
        if floor[index] >= best * (1 - 1e-12):
            break
        if len(found) and budget.expired:
            sure = False
            break
        row, value, complete = _settle(problem, counts, numbers[index])
        sure &= complete or value <= floor[index] * (1 + 1e-12)
        if value < best:
            best, found = value, row
    return found, float(best), sure


def _settle(problem: PlacementProblem, counts: Floats, replicas: Ints) -> tuple[Ints, float, bool]:
    """counts [experts, W], replicas int64[experts] -> (int64[slots], value, whether every dealing was tried)."""
    items = np.repeat(np.arange(problem.experts), replicas)
    share = (counts / replicas[:, None])[items]
    room = problem.slots_of_rank
    if how_many(room) <= DEALINGS:
        dealt = deals(room)
        load = np.zeros((len(dealt), problem.ranks, share.shape[1]))
        for item in range(len(items)):
            load[np.arange(len(dealt)), dealt[:, item]] += share[item]
        value = (load / problem.speed[:, None]).max(axis=1).mean(axis=1)
        best = int(value.argmin())
        return items[np.argsort(dealt[best], kind="stable")], float(value[best]), True
    table = pack(problem, counts, replicas)
    table.lower_peaks(problem)
    return table.slot_expert, float((table.load / problem.speed[:, None]).max(axis=0).mean()), False
