"""Lower bounds on the load of the slowest rank, in units of the mean: no placement within the slots can beat them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.placement.bounds import kernel, peaks
from moesim.placement.budget import Budget
from moesim.placement.search.replication import choices

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CHOICES = 2_000  # numbers of replicas that are tried one by one
STEP = 1.02  # by which a guess of the optimum grows
MOST_WINDOWS = 64  # whose peaks are looked at together: the program grows with them
REACH = 2.0  # how far above the first bound a sharper one is looked for


def bounds(problem: PlacementProblem, budget: Budget | None = None) -> Floats:
    """float64[W, layers]: the best bound on max/mean of each window of `problem.train`, at least 1.

    Rows that the budget leaves out keep a weaker bound; `budget.cut` says so.
    """
    counts = problem.train.counts
    load = counts.reshape(-1, counts.shape[2]).astype(np.float64)
    fair = np.where(load.sum(axis=1) > 0, load.sum(axis=1), 1.0) / problem.speed.sum()
    best = np.maximum(fair, hottest(load, problem))
    if problem.slots == problem.experts:
        best = np.maximum(best, full_slots(load, problem))
    elif problem.dispatch.name == "even":
        best = _sharper(problem, load, best, budget or Budget())
    result: Floats = (best / fair).reshape(counts.shape[:2])
    return np.maximum(result, 1.0)


def joint(problem: PlacementProblem, budget: Budget | None = None) -> Floats:
    """float64[layers]: a bound on the mean over windows of max/mean under one placement for all of them: the mean of
    `bounds`, raised by what peaks of several windows ask of the same replicas."""
    budget = budget or Budget()
    alone = bounds(problem, budget)
    result: Floats = alone.mean(axis=0)
    windows, layers = alone.shape
    if windows == 1 or windows > MOST_WINDOWS or problem.slots == problem.experts:
        return result
    fair = problem.train.counts.sum(axis=2, keepdims=True) / problem.speed.sum()
    share = problem.train.counts / np.maximum(fair, 1e-300) / problem.speed.max()
    for layer in range(layers):
        if budget.expired:
            break
        if fair[:, layer].all():
            result[layer] = max(
                result[layer], peaks.least_peak(peaks.of(problem, share[:, layer], alone[:, layer])).value
            )
        budget.say(f"peaks of {layer + 1} of {layers} layers together")
    return result


def _sharper(problem: PlacementProblem, load: Floats, best: Floats, budget: Budget) -> Floats:
    """The bounds float64[rows] that need a search, one row after the other while there is time."""
    result = best.copy()
    alike = problem.slots % problem.ranks == 0 and len(np.unique(problem.slots_of_rank)) == 1
    alike &= len(np.unique(problem.speed)) == 1
    for number, row in enumerate(load):
        if budget.expired:
            break
        if alike and row.any():
            heavy, low = np.sort(row)[::-1] / problem.speed[0], float(best[number])
            result[number] = kernel.least_time(heavy, low, REACH * low, problem.slots, problem.ranks, 10)
        result[number] = max(result[number], over_choices(problem, row, result[number]))
        budget.say(f"{number + 1} of {len(load)} windows and layers")
    return result


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
    fewest = np.concatenate([[0], np.cumsum(np.sort(problem.slots_of_rank))])
    fast = np.concatenate([[0.0], np.cumsum(np.sort(problem.speed)[::-1])])
    return np.array([kernel.full_slots(row, fewest, fast) for row in np.sort(load, axis=1)])


def over_choices(problem: PlacementProblem, load: Floats, best: float) -> float:
    """load float64[experts], a bound -> a bound, not below it, for replicas with equal parts.

    A placement within a time U gives each expert enough replicas for U. If the least bound over all such numbers of
    replicas is at most U, no other number can beat it; otherwise nothing is within U. Grows U while there are few.
    """
    guess = best * STEP
    while (numbers := _within(problem, load, guess)) is not None:
        found = _least(problem, load, numbers, best)
        if found <= guess:
            return max(best, found)
        best, guess = guess, guess * STEP
    return best


def replica_choices(problem: PlacementProblem, load: Floats) -> list[Ints] | None:
    """The numbers of replicas int64[experts] among which the best one is, None where they are too many to try."""
    fair = float(load.sum() / problem.speed.sum())
    guess = max(fair, float(hottest(load[None], problem)[0])) * STEP
    while guess > 0 and (numbers := _within(problem, load, guess)) is not None:
        if min((_given(problem, load, replicas) for replicas in numbers), default=np.inf) <= guess:
            return numbers
        guess *= STEP
    return None


def _within(problem: PlacementProblem, load: Floats, time: float) -> list[Ints] | None:
    needed = np.maximum(np.ceil(load / (time * problem.speed.max()) - 1e-9), 1).astype(np.int64)
    return choices(needed, problem.slots, CHOICES)


def _least(problem: PlacementProblem, load: Floats, numbers: list[Ints], enough: float) -> float:
    """The least bound over the numbers of replicas; the search ends once it is not above `enough`."""
    least = np.inf
    for replicas in numbers:
        least = min(least, _given(problem, load, replicas))
        if least <= enough:
            break
    return float(least)


def _given(problem: PlacementProblem, load: Floats, replicas: Ints) -> float:
    """The bound of full slots, every replica an item of its own, and of pairs where no rank has more than two."""
    items = np.repeat(load / replicas, replicas)
    value = float(full_slots(items[None], problem)[0])
    if problem.slots_of_rank.min() == problem.slots_of_rank.max() == 2:
        order = np.sort(items)[::-1]
        pairs = order[: problem.ranks] + order[::-1][: problem.ranks]
        value = max(value, float(pairs.max() / problem.speed.max()))
    return value
