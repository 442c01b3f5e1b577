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
from moesim.placement.search.anneal import soften

if TYPE_CHECKING:
    from moesim.placement.budget import Budget
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.search.table import Table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FEW = 16  # windows
CLOSE = 1.01  # times the bound: good enough
BESIDE = (0.0, 0.03, 0.1, 0.2)  # of a fair share: what else stands on the rank of a hot replica
TRIALS = 5_000  # exchanges tried for each slot; 0.15 s for 432 slots and 8 windows


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
    """Exchanges at random towards the bound, then the best ones; the table changes where its mean peak falls."""
    enough = float(table.lowest().mean()) * CLOSE
    if budget.expired or table.peak() <= enough:
        return
    tried, trials = table.copy(), TRIALS * len(table.slot_item)
    slot_item = soften(tried.x, *tried.rule(problem)[:4], tried.load, enough * tried.x.shape[1], trials, 0)
    tried = table.arranged(problem, slot_item)
    tried.lower_peaks(problem)
    if tried.peak() < table.peak():
        table.take(tried)
