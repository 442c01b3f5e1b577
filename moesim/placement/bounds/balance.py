"""Lower bounds on the load of the slowest rank, in units of the mean: no placement within the slots can beat them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem

Floats = npt.NDArray[np.float64]


def bounds(problem: PlacementProblem) -> Floats:
    """float64[W, layers]: the best bound on max/mean of each window of `problem.train`, at least 1."""
    counts = problem.train.counts
    load = counts.reshape(-1, counts.shape[2]).astype(np.float64)
    fair = np.where(load.sum(axis=1) > 0, load.sum(axis=1), 1.0) / problem.speed.sum()
    best = np.maximum(fair, hottest(load, problem))
    if problem.slots == problem.experts:
        best = np.maximum(best, full_slots(load, problem))
    result: Floats = (best / fair).reshape(counts.shape[:2])
    return np.maximum(result, 1.0)


def hottest(load: Floats, problem: PlacementProblem) -> Floats:
    """float64[rows, experts] -> [rows] seconds: the least time T for which the slots suffice.

    No rank takes more than T x fastest of one expert, however its replicas share, so expert e needs
    ceil(load / (T x fastest)) slots; the sum must not exceed the slots, and a second slot on one rank does not help.
    """
    spare, fastest = problem.slots - problem.experts, problem.speed.max()
    low, high = np.zeros(len(load)), load.max(axis=1) / fastest
    for _ in range(50):
        middle = (low + high) / 2
        needed = np.maximum(np.ceil(load / np.maximum(middle * fastest, 1e-300)[:, None] - 1e-9), 1)
        fits = (needed - 1).sum(axis=1) <= spare
        fits &= needed.max(axis=1) <= problem.ranks
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return low


def full_slots(load: Floats, problem: PlacementProblem) -> Floats:
    """float64[rows, experts] -> [rows] seconds, where every slot holds an expert of its own.

    The h heaviest experts stand on some g <= h ranks, whose other slots hold no less than the lightest experts. The
    slowest of the g takes no less than their mean; which g is free, so the least over g is a bound for each h. The
    ranks with the fewest slots and the highest speed are taken for the g.
    """
    order = np.sort(load, axis=1)
    light = np.concatenate([np.zeros((len(load), 1)), np.cumsum(order, axis=1)], axis=1)
    heavy = np.concatenate([np.zeros((len(load), 1)), np.cumsum(order[:, ::-1], axis=1)], axis=1)
    fewest = np.concatenate([[0], np.cumsum(np.sort(problem.slots_of_rank))])
    fast = np.concatenate([[0], np.cumsum(np.sort(problem.speed)[::-1])])
    best = np.zeros(len(load))
    for h in range(1, problem.ranks + 1):
        g = np.arange(1, h + 1)
        rest = np.clip(fewest[g] - h, 0, problem.experts - h)
        best = np.maximum(best, ((heavy[:, [h]] + light[:, rest]) / fast[g]).min(axis=1))
    return best
