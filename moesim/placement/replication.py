"""How many slots each expert gets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def replicate(load: npt.NDArray[np.floating], spare: int, most: int) -> Ints:
    """load float[rows, experts] -> int64[rows, experts]: one slot each, then each of `spare` slots to the expert with
    most load a replica that has fewer than `most` (all have: the least replicated one). First of equals.
    """
    replicas, row = np.ones(load.shape, dtype=np.int64), np.arange(len(load))
    share = load.copy()
    for _ in range(spare):
        hottest = np.where(replicas < most, share, -1.0 - replicas).argmax(axis=1)
        replicas[row, hottest] += 1
        share[row, hottest] = load[row, hottest] / replicas[row, hottest]
    return replicas


def choices(least: Ints, slots: int, most: int, limit: int) -> list[Ints] | None:
    """All numbers of replicas int64[experts] with least <= replicas <= most that fill the slots; None: over `limit`."""
    spare, experts = slots - int(least.sum()), len(least)
    if spare < 0:
        return []
    if comb(spare + experts - 1, spare) > limit:
        return None
    return [least + more for more in _compositions(spare, experts) if (least + more).max() <= most]


def _compositions(total: int, parts: int) -> Iterator[Ints]:
    """Ways to write `total` as a sum of `parts` numbers from 0 on: bars between stars."""
    for bars in combinations(range(total + parts - 1), parts - 1):
        yield np.diff(np.array([-1, *bars, total + parts - 1])) - 1
