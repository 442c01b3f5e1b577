"""multiwindow: least expected peak over windows, the default for balance.

The mean load can be balanced almost perfectly, and then single windows decide: experts that peak together belong on
different ranks. Replicas and ranks start from `flash`, whose few parameters cannot overfit; then pairs of ranks
exchange experts as long as the mean over resampled windows of the slowest rank falls.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.placement import kernels
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.samples import sampled_counts
from moesim.placement.solution import Answer
from moesim.placement.strategies.flash import DEVIATIONS, flash_replicas
from moesim.placement.strategies.lpt import Table, pack

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PASSES = 50  # over all pairs of ranks


class MultiWindow:
    """Expected peak over resampled windows."""

    name, summary = "multiwindow", "least expected peak over resampled windows; the default for balance"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """The layers one by one; those that the time limit leaves out keep the packing of flash."""
        samples = sampled_counts(problem.train, budget.stream("samples"))
        replicas, rows = flash_replicas(problem, samples), []
        for layer in range(problem.layers):
            passes = 0 if budget.expired else PASSES
            rows.append(_spread_peaks(problem, samples[:, layer], replicas[layer], layer, passes))
        few = problem.train.num_windows == 1 and problem.train.tokens is None
        return Answer(problem.place(np.stack(rows)), notes=("one window: nothing is known of peaks",) if few else ())


def _spread_peaks(problem: PlacementProblem, samples: Floats, replicas: Ints, layer: int, passes: int) -> Ints:
    """samples float64[W, experts], replicas int64[experts] of one layer -> int64[slots]."""
    fair = np.maximum(samples.sum(axis=1), 1.0) / problem.speed.sum()
    counts = np.ascontiguousarray((samples / fair[:, None]).T)
    total, cap = problem.load[layer].astype(np.float64), np.inf
    if problem.load_cap is None:
        table = pack(problem, counts, replicas, DEVIATIONS)
    else:
        cap = problem.load_cap * total.sum() / problem.speed.sum()
        even = pack(problem, total[:, None], replicas)
        table = Table.start(problem, even.slot_expert, counts)
    carried = total[table.of] * table.share
    kernels.lower_peaks(table.x, *table.rule(problem), table.load, carried, cap, 1 / problem.speed, passes)
    return table.slot_expert
