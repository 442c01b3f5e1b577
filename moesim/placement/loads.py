"""What each rank has to compute under a placement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows

Floats = npt.NDArray[np.float64]


def rank_loads(problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
    """float64[W, layers, ranks]: choices that each rank computes in each window, by the problem's dispatch rule."""
    shares = problem.dispatch.shares(problem, placement, windows)
    result = np.zeros((windows.num_windows, placement.num_layers, placement.num_ranks))
    for layer in range(placement.num_layers):
        rows = windows.counts[:, layer, placement.slot_expert[layer]] * shares[:, layer]
        first = np.searchsorted(placement.slot_rank[layer], np.arange(placement.num_ranks))
        owned = np.bincount(placement.slot_rank[layer], minlength=placement.num_ranks) > 0
        result[:, layer, owned] = np.add.reduceat(rows, first[owned], axis=1)
    return result


def imbalance(problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
    """float64[W, layers]: time of the slowest rank over the time if all shared the work; 1 is perfect."""
    loads = rank_loads(problem, placement, windows)
    slowest, fair = (loads / problem.speed).max(axis=2), loads.sum(axis=2) / problem.speed.sum()
    result: Floats = np.where(fair > 0, slowest / np.where(fair > 0, fair, 1), 1.0)
    return result
