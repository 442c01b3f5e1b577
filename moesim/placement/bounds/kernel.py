"""Compiled parts of the bounds on balance, one layer and window at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import njit


@njit
def full_slots(order: Any, fewest: Any, fast: Any) -> Any:
    """order float64[items] ascending, fewest int64[ranks + 1], fast float64[ranks + 1] -> seconds.

    fewest[g], fast[g]: slots of the g ranks that have fewest, speed of the g fastest. See `balance.full_slots`.
    """
    items, ranks = len(order), len(fewest) - 1
    light = np.zeros(items + 1)
    for item in range(items):
        light[item + 1] = light[item] + order[item]
    best = 0.0
    for heavy in range(1, min(ranks, items) + 1):
        carried, least = light[items] - light[items - heavy], np.inf
        for used in range(1, heavy + 1):
            rest = min(max(fewest[used] - heavy, 0), items - heavy)
            least = min(least, (carried + light[rest]) / fast[used])
            if least <= best:
                break
        best = max(best, least)
    return best


@njit
def beyond(load: Any, time: Any, slots: Any, ranks: Any) -> Any:
    """Whether no placement with equal parts is within `time`: load float64[experts] descending, equally many slots on
    each rank, ranks of equal speed.

    A replica above t >= time / 2 stands alone of its kind on its rank, and of the other `each - 1` replicas there at
    least j are at most (time - t) / (each - j). So with j points for every replica above t and -1 for every one at most
    (time - t) / (each - j), no rank has more than 0 points. Replicas are chosen to make the sum least; a price on slots
    (Lagrange) turns that into a choice for each expert alone, and any price gives a bound.
    """
    each, limit = slots // ranks, slots - len(load) + 1  # an expert may have more replicas than there are ranks
    for step in range(16):
        t = time * (0.5 + step / 32.0)
        for j in range(1, each):
            small = (time - t) / (each - j)
            for price in (-1.0, -1.5, -2.0, -0.5, -0.25):
                total = price * slots
                for expert in range(len(load)):
                    least = max(int(np.ceil(load[expert] / time - 1e-9)), 1)
                    fine = int(np.ceil(load[expert] / max(small, 1e-300)))  # replicas of which every one is small
                    most = max(min(fine, limit), least)
                    if load[expert] <= small:
                        # every replica is small: with a price of -1 or less more replicas never help
                        total += min((-1.0 - price) * least, (-1.0 - price) * limit)
                        continue
                    found = np.inf
                    for replicas in range(least, most + 1):
                        part = load[expert] / replicas
                        points = j if part > t * (1 + 1e-12) else (-1 if part <= small * (1 + 1e-12) else 0)
                        found = min(found, replicas * (points - price))
                    if fine <= limit:
                        found = min(found, (-1.0 - price) * limit)
                    total += found
                if total > 1e-9:
                    return True
    return False


@njit
def least_time(load: Any, low: Any, high: Any, slots: Any, ranks: Any, steps: Any) -> Any:
    """The largest time between `low` and `high` that `beyond` rules out, by bisection, else `low`."""
    for _ in range(steps):
        middle = (low + high) / 2
        if beyond(load, middle, slots, ranks):
            low = middle
        else:
            high = middle
    return low
