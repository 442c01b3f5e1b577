"""multiwindow: least expected peak over windows, the default for balance.

The mean load can be balanced almost perfectly, and then single windows decide: experts that peak together belong on
different ranks. Replicas and ranks start from `flash`, whose few parameters cannot overfit; then pairs of ranks
exchange experts as long as the mean over resampled windows of the slowest rank falls.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.search import peaks
from moesim.placement.search.samples import sampled_counts
from moesim.placement.search.table import Table, pack
from moesim.placement.solution import Answer
from moesim.placement.strategies.flash import DEVIATIONS, flash_replicas

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class MultiWindow:
    """Expected peak over resampled windows."""

    name, summary = "multiwindow", "least expected peak over resampled windows; the default for balance"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """The layers one by one; those that the time limit leaves out keep the packing of flash."""
        samples = sampled_counts(problem.train, budget.stream("samples"))
        replicas, rows = flash_replicas(problem, samples), []
        for layer in range(problem.layers):
            table = _packed(problem, samples[:, layer], replicas[layer], layer)
            if not budget.expired:
                table = _spread_peaks(problem, samples[:, layer], table, layer, budget)
            rows.append(table.slot_expert)
            budget.say(f"layer {layer + 1} of {problem.layers}")
        few = problem.train.num_windows == 1 and problem.train.tokens is None
        return Answer(problem.place(np.stack(rows)), notes=("one window: nothing is known of peaks",) if few else ())


def _fair(problem: PlacementProblem, samples: Floats) -> Floats:
    """samples float64[W, experts] -> float64[experts, W] over the fair share of a rank of speed 1."""
    fair = np.maximum(samples.sum(axis=1), 1.0) / problem.speed.sum()
    return np.ascontiguousarray((samples / fair[:, None]).T)


def _packed(problem: PlacementProblem, samples: Floats, replicas: Ints, layer: int) -> Table:
    """samples float64[W, experts], replicas int64[experts] of one layer -> packed by risk, or by load under a cap."""
    counts = _fair(problem, samples)
    if problem.load_cap is None:
        return pack(problem, counts, replicas, DEVIATIONS)
    even = pack(problem, problem.load[layer].astype(np.float64)[:, None], replicas)
    return Table.start(problem, even.slot_expert, counts)


def _spread_peaks(problem: PlacementProblem, samples: Floats, table: Table, layer: int, budget: Budget) -> Table:
    """Exchanges while peaks fall; of a few windows each peak is looked at, with other numbers of replicas too."""
    total = problem.load[layer].astype(np.float64)
    cap = np.inf if problem.load_cap is None else problem.load_cap * total.sum() / problem.speed.sum()
    table.lower_peaks(problem, total[table.of] * table.share, cap)
    if not peaks.fits(problem, len(samples)):
        return table
    for replicas in peaks.chosen(problem, _fair(problem, samples).T, table.peak()):
        tried = _packed(problem, samples, replicas, layer)
        tried.lower_peaks(problem)
        table = min(table, tried, key=Table.peak)
    peaks.settled(problem, table, budget)
    return table
