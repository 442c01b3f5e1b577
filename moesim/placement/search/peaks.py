"""One layer on a few windows, each of which has a peak of its own: replicas for all peaks at once, then exchanges.

Where windows are many, a peak is a draw of many and replicas by mean + deviations are as good as any. Of a few windows
each peak can be looked at: `bounds.peaks` says which numbers of replicas reach the least mean of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.placement.bounds.peaks import least_peak, of, whole
from moesim.placement.search.anneal import reach

if TYPE_CHECKING:
    from moesim.placement.budget import Budget
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.search.table import Table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FEW = 16  # windows
CLOSE = 1.01  # times the bound: good enough
BESIDE = (0.0, 0.03, 0.1, 0.2)  # of a fair share: what else stands on the rank of a hot replica
GOALS = (0.3, 0.5, 0.4)  # of the way from a value down to what replicas allow
TRIALS = 600_000  # exchanges tried for a goal, under 0.1 s


def fits(problem: PlacementProblem, windows: int) -> bool:
    """Whether the bound's arguments hold with equality for some placement: even shares, equal ranks, no cap."""
    alike = len(np.unique(problem.speed)) == 1 and problem.load_cap is None
    return alike and problem.dispatch.name == "even" and 1 < windows <= FEW and problem.slots > problem.experts


def chosen(problem: PlacementProblem, x: Floats, value: float) -> Iterator[Ints]:
    """Numbers of replicas int64[experts] to try where `value` is not close to the bound yet."""
    layer = of(problem, x, np.ones(len(x)))
    if value <= least_peak(layer).value * CLOSE:
        return
    for beside in BESIDE if layer.room > 1 else (0.0,):
        alone = replace(layer, room=1, floor=layer.floor - beside)
        yield whole(alone, least_peak(alone))


def settled(problem: PlacementProblem, table: Table, budget: Budget) -> None:
    """Exchanges towards lower and lower goals; the table changes where its mean peak falls."""
    bound = table.lowest()
    for number, share in enumerate(GOALS):
        value = table.peak()
        if budget.expired or value <= bound.mean() * CLOSE:
            return
        tried = table.copy()
        goal = _goal(bound, value - (value - bound.mean()) * share)
        reach(tried.x, *tried.rule(problem)[:4], tried.load, goal, TRIALS, number)
        tried.lower_peaks(problem)
        if tried.peak() < value:
            table.take(tried)


def _goal(bound: Floats, mean: float) -> Floats:
    """float64[W]: one height for all windows but those whose bound is above it, with the given mean."""
    low, high = 0.0, float(bound.max()) + mean * len(bound)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(bound, middle).mean() < mean else (low, middle)
    return np.maximum(bound, high)
