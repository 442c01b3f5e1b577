"""The linear programs behind weighted and per-batch dispatch: spread each expert's load over its slots so that the
slowest rank finishes first, in one batch or on average over windows. Both are linear in the shares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from moesim.errors import BrokenInvariant

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


def best_shares(load: Floats, slot_expert: Ints, slot_rank: Ints, speed: Floats) -> Floats:
    """load float64[experts], slot_expert, slot_rank int[slots], speed float64[ranks] -> float64[slots] shares.

    Experts with one slot are constants; the program has a variable for each further slot and one for the makespan.
    EMPTY cells have no share.
    """
    if (there := slot_expert >= 0).sum() < len(there):
        return spread_to(there, best_shares(load, slot_expert[there], slot_rank[there], speed))
    replicas = np.bincount(slot_expert, minlength=len(load))
    free = np.flatnonzero((replicas[slot_expert] > 1) & (load[slot_expert] > 0))
    share: Floats = 1.0 / replicas[slot_expert]
    if len(free) and load.sum() > 0:
        part = share * load[slot_expert]
        part[free] = 0.0
        fixed = np.bincount(slot_rank, part, len(speed)).astype(np.float64)
        share[free] = _solve(load[slot_expert[free]], slot_expert[free], slot_rank[free], fixed, speed)
    return share


def _solve(amount: Floats, expert: Ints, rank: Ints, fixed: Floats, speed: Floats) -> Floats:
    """amount, expert, rank [free slots] -> float64[free slots] shares; minimise z with rank load <= z x speed."""
    count, scale = len(amount), amount.sum() + fixed.sum()
    used, row = np.unique(rank, return_inverse=True)
    names, group = np.unique(expert, return_inverse=True)
    at, last = np.arange(count), np.full(len(used), count)
    values = np.r_[amount / speed[rank], np.full(len(used), -scale)]
    upper: Any = scipy.sparse.coo_array((values, (np.r_[row, np.arange(len(used))], np.r_[at, last]))).tocsr()
    equal: Any = scipy.sparse.coo_array((np.ones(count), (group, at)), shape=(len(names), count + 1)).tocsr()
    below, least = -(fixed / speed)[used], float((fixed / speed).max() / scale)
    limits = np.r_[np.tile([0.0, 1.0], (count, 1)), [[least, np.inf]]]
    cost = np.r_[np.zeros(count), 1.0]
    answer = scipy.optimize.linprog(cost, upper, below, equal, np.ones(len(names)), limits, "highs")
    if answer.x is None:
        raise BrokenInvariant(f"the linear program of dispatch has no solution: {answer.message}")
    share = np.clip(answer.x[:count], 0.0, 1.0)
    total = np.bincount(group, share)[group]
    result: Floats = share / total
    return result


def spread_to(there: npt.NDArray[np.bool_], values: Floats) -> Floats:
    """Values of the slots that are there, 0 elsewhere."""
    result = np.zeros(len(there))
    result[there] = values
    return result


MOST_WINDOWS = 16  # of one program; more are added up in stretches
MIXTURES = 9  # of a table with equal shares; the mean peak is convex between the two


def fixed_shares(load: Floats, slot_expert: Ints, slot_rank: Ints, speed: Floats) -> Floats:
    """load float64[W, experts] -> float64[slots]: one table of shares for the least mean over windows of max/mean.
    EMPTY cells have no share. Of many windows the program sees stretches, so its table is mixed with equal shares as
    all of the windows like it best: never worse there than equal ones.
    """
    if (there := slot_expert >= 0).sum() < len(there):
        return spread_to(there, fixed_shares(load, slot_expert[there], slot_rank[there], speed))
    load = load[load.sum(axis=1) > 0]
    if len(load) <= MOST_WINDOWS:
        return _program(load, slot_expert, slot_rank, speed)
    even: Floats = 1.0 / np.bincount(slot_expert, minlength=load.shape[1])[slot_expert]
    few = np.stack([part.sum(axis=0) for part in np.array_split(load, MOST_WINDOWS)])
    found = _program(few, slot_expert, slot_rank, speed)
    mixed = [even + (found - even) * part for part in np.linspace(1.0, 0.0, MIXTURES)]
    fair = (load / load.sum(axis=1, keepdims=True))[:, slot_expert]
    return min(mixed, key=lambda share: _mean_peak(fair * share, slot_rank, speed))


def _mean_peak(part: Floats, slot_rank: Ints, speed: Floats) -> float:
    """part float64[W, slots] -> mean over windows of the slowest rank's time."""
    ranks = np.eye(len(speed))[slot_rank] / speed
    return float((part @ ranks).max(axis=1).mean())


def _program(load: Floats, slot_expert: Ints, slot_rank: Ints, speed: Floats) -> Floats:
    """float64[slots]: the best table for a few windows, none of them empty."""
    replicas = np.bincount(slot_expert, minlength=load.shape[1])
    share: Floats = 1.0 / replicas[slot_expert]
    free = np.flatnonzero((replicas[slot_expert] > 1) & (load.sum(axis=0)[slot_expert] > 0))
    if not len(load) or not len(free):
        return share
    fair = load / load.sum(axis=1, keepdims=True)
    part = share * fair[:, slot_expert]
    part[:, free] = 0.0
    fixed = np.stack([np.bincount(slot_rank, row, len(speed)) for row in part])
    share[free] = _solve_windows(fair[:, slot_expert[free]], slot_expert[free], slot_rank[free], fixed / speed, speed)
    return share


def _solve_windows(amount: Floats, expert: Ints, rank: Ints, fixed: Floats, speed: Floats) -> Floats:
    """amount [W, free slots], fixed [W, ranks] time -> [free slots]; minimise the sum of z_w, a peak of each window."""
    windows, count = amount.shape
    used, row = np.unique(rank, return_inverse=True)
    names, group = np.unique(expert, return_inverse=True)
    at, wide = np.arange(count), len(used)
    window = np.arange(windows)[:, None]
    values = np.r_[(amount / speed[rank]).ravel(), np.full(windows * wide, -1.0)]
    rows = np.r_[(window * wide + row).ravel(), np.arange(windows * wide)]
    columns = np.r_[np.tile(at, windows), np.repeat(count + np.arange(windows), wide)]
    upper: Any = scipy.sparse.coo_array((values, (rows, columns)), shape=(windows * wide, count + windows)).tocsr()
    equal: Any = scipy.sparse.coo_array((np.ones(count), (group, at)), shape=(len(names), count + windows)).tocsr()
    limits = np.r_[np.tile([0.0, 1.0], (count, 1)), np.column_stack([fixed.max(axis=1), np.full(windows, np.inf)])]
    cost = np.r_[np.zeros(count), np.ones(windows)]
    answer = scipy.optimize.linprog(cost, upper, -fixed[:, used].ravel(), equal, np.ones(len(names)), limits, "highs")
    if answer.x is None:
        raise BrokenInvariant(f"the linear program of dispatch has no solution: {answer.message}")
    share = np.clip(answer.x[:count], 0.0, 1.0)
    result: Floats = share / np.bincount(group, share)[group]
    return result
