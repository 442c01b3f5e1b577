"""How many slots each expert gets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def replicate(load: npt.NDArray[np.floating], spare: int, most: int, relief: Floats | None = None) -> Ints:
    """load float[rows, experts] -> int64[rows, experts]: one slot each, then each of `spare` slots to the expert whose
    busiest replica has most load, unless it has `most` (all have: the least replicated one). First of equals.

    relief float64[most + 1]: share of the busiest of k replicas, 1 / k by default; where one more replica relieves
    nothing, as many are taken at once as do.
    """
    if relief is None:
        relief = 1.0 / np.maximum(np.arange(most + 1), 1)
    replicas, row = np.ones(load.shape, dtype=np.int64), np.arange(len(load))
    step, left = _steps(relief), np.full(len(load), spare)
    while (left > 0).any():
        held = np.minimum(replicas, most)
        able = step[held] <= left[:, None]
        hottest = np.where(able & (replicas < most), load * relief[held], -1.0 - replicas).argmax(axis=1)
        more = np.where(able[row, hottest] & (replicas[row, hottest] < most), step[held[row, hottest]], 1)
        more = np.minimum(more, left)
        replicas[row, hottest] += more
        left -= more
    return replicas


def _steps(relief: Floats) -> Ints:
    """float64[most + 1] -> int64[most + 1]: how many replicas more it takes until the busiest has less."""
    step = np.full(len(relief), len(relief) + 1, dtype=np.int64)
    for held in range(1, len(relief)):
        less = np.flatnonzero(relief[held:] < relief[held] - 1e-12)
        step[held] = less[0] if len(less) else step[held]
    return step


def choices(least: Ints, slots: int, limit: int) -> list[Ints] | None:
    """All numbers of replicas int64[experts] with least <= replicas that fill the slots; None: over `limit`. An expert
    may have more than there are ranks: two on one of them are a larger part, and EPLB deals so.
    """
    spare, experts = slots - int(least.sum()), len(least)
    if spare < 0:
        return []
    if comb(spare + experts - 1, spare) > limit:
        return None
    return [least + more for more in _compositions(spare, experts)]


def _compositions(total: int, parts: int) -> Iterator[Ints]:
    """Ways to write `total` as a sum of `parts` numbers from 0 on: bars between stars."""
    for bars in combinations(range(total + parts - 1), parts - 1):
        yield np.diff(np.array([-1, *bars, total + parts - 1])) - 1
