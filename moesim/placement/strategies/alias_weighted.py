"""alias_weighted: every rank gets exactly the mean, if each redundant slot may carry a part of its own size.

Walker's alias method splits n loads over n bins of two pieces each. Here a rank with s slots takes s - 1 whole loads
and one piece of another: of the loads in order, the last s - 1 neighbours that do not exceed the mean together, topped
up by a piece of the load after them, which is large enough because the next s - 1 neighbours do exceed it. What is left
of that load goes back. With as many redundant slots as ranks this always comes out even.
Source: Walker, "An Efficient Method for Generating Discrete Random Variables with General Distributions" (1977).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer
from moesim.placement.strategies.lpt import Lpt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class AliasWeighted:
    """Exact where ranks are equal and have a redundant slot each; the packing of lpt elsewhere."""

    name, summary = "alias_weighted", "max/mean 1.000 with a redundant slot a rank and weighted dispatch"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """The layers one by one; the weights are those of the dispatch rule `weighted`."""
        notes = () if problem.dispatch.name != "even" else ("planned for weighted dispatch, judged with even shares",)
        slots, equal = problem.slots_of_rank, len(np.unique(problem.speed)) == 1
        if problem.slots < problem.experts + problem.ranks or slots.min() != slots.max() or not equal:
            unmet = "fewer redundant slots than ranks, or unequal ranks: the packing of lpt"
            return Answer(Lpt().plan(problem, budget).placement, notes=(*notes, unmet))
        rows = [_alias(row.astype(np.float64), problem.ranks, int(slots[0])) for row in problem.load]
        return Answer(problem.place(np.stack(rows)), notes=notes)


def _alias(load: Floats, ranks: int, slots: int) -> Ints:
    """load float64[experts] -> int64[ranks x slots]; loads of nothing fill up what the experts leave free."""
    heaviest, mean, whole = np.argsort(-load, kind="stable"), load.sum() / ranks, slots - 1
    nothing = ranks * whole - len(load)
    left = np.concatenate([load, np.zeros(nothing)])
    names = np.concatenate([np.arange(len(load)), np.resize(heaviest, nothing)])
    result = []
    for _ in range(ranks):
        order = np.argsort(left, kind="stable")
        left, names = left[order], names[order]
        taken = _neighbours(left, whole, mean)
        piece = taken.stop  # the load that tops the rank up; the last rank is full without
        if piece < len(left):
            left[piece] -= mean - left[taken].sum()
        chosen = names[taken]
        extra = names[piece] if piece < len(left) else heaviest[~np.isin(heaviest, chosen)][0]
        result.append(np.append(chosen, extra))
        left, names = np.delete(left, taken), np.delete(names, taken)
    return np.concatenate(result)


def _neighbours(left: Floats, whole: int, mean: float) -> slice:
    """The last `whole` neighbours of ascending loads whose sum does not exceed the mean."""
    sums = np.concatenate([[0.0], np.cumsum(left)])
    together = sums[whole:] - sums[: len(sums) - whole]
    first = max(int(np.searchsorted(together, mean * (1 + 1e-12), side="right")) - 1, 0)
    return slice(first, first + whole)
