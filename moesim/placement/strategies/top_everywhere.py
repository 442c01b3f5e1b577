"""top_everywhere: what operators do by hand: the hottest experts stand on every rank, the others in order.

With r redundant slots on each of R ranks, the K hottest experts of each layer have a replica on all ranks; K is the
largest number for which the others still find a slot.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.errors import DoesNotFit
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer

Ints = npt.NDArray[np.int64]


class TopEverywhere:
    """Replicas of the hottest on every rank."""

    name, summary = "top_everywhere", "the K hottest experts on every rank, the others in order: an operators' habit"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises DoesNotFit where no expert can stand on every rank."""
        spare, least = problem.slots - problem.experts, int(problem.slots_of_rank.min())
        count = min(spare // max(problem.ranks - 1, 1), least, problem.experts)
        if problem.ranks == 1 or count < 1:
            raise DoesNotFit(
                f"top_everywhere needs a redundant slot on all ranks but one: {problem.ranks - 1}, there are {spare}",
                way_out=f"{problem.ranks} redundant slots, or strategy eplb",
            )
        rows = [_row(problem, load, count) for load in problem.load]
        return Answer(problem.place(np.stack(rows)), notes=(f"{count} experts of each layer stand on every rank",))


def _row(problem: PlacementProblem, load: Ints, count: int) -> Ints:
    """int64[experts] -> int64[slots]; slots that are left over hold the next hottest."""
    order = np.argsort(-load, kind="stable")
    hot, others = order[:count], np.sort(order[count:])
    room = problem.slots_of_rank - count
    rest = np.concatenate([others, np.resize(others if len(others) else hot, max(int(room.sum()) - len(others), 0))])
    parts = np.split(rest[: int(room.sum())], np.cumsum(room)[:-1])
    return np.concatenate([np.concatenate([hot, part]) for part in parts])
