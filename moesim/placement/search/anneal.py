"""Compiled: exchanges at random within one layer, so that no rank is above its goal in any window.

Exchanges that lower the sum of peaks get stuck: each window has another slowest rank, and most exchanges touch none of
them. What ranks are above a goal, squared, tells nearly all exchanges apart. Source of the rule by which worse ones
are taken: Metropolis et al. (1953); Kirkpatrick, Gelatt, Vecchi, "Optimization by Simulated Annealing" (1983).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import inner, njit
from moesim.placement.search.kernels import carries, exchange

HOT, COLD = 1e-3, 1e-6  # temperature at the beginning and the end, in squares of a fair share
ROUND = 1000  # trials at one temperature
MOST = 2**31 - 1


@njit
def reach(x: Any, slot_item: Any, of: Any, ptr: Any, owner: Any, load: Any, goal: Any, trials: Any, seed: Any) -> Any:
    """x [items, W], load [ranks, W] and slot_item [slots] as in `kernels`, in units of a fair share, ranks of equal
    speed; goal float64[W]. True once no rank is above it.
    """
    ranks, slots = load.shape[0], len(slot_item)
    over = np.array([_over(load, rank, goal) for rank in range(ranks)])
    state, heat = _next(seed + 1), HOT
    fall = (COLD / HOT) ** (ROUND / trials)
    for trial in range(trials):
        if trial % ROUND == 0:
            heat *= fall
            if over.sum() <= 1e-12:
                return True
        state = _next(state)
        a = state % slots
        state = _next(state)
        b = state % slots
        state = _next(state)
        p, q = owner[a], owner[b]
        if p == q or over[p] + over[q] == 0.0:
            continue
        limit = over[p] + over[q] - heat * np.log(state / MOST)
        mine, other = _exchanged(x, slot_item, load, goal, a, p, b, q, limit)
        if mine + other > limit:
            continue
        if carries(slot_item, of, ptr, p, of[slot_item[b]]) or carries(slot_item, of, ptr, q, of[slot_item[a]]):
            continue
        exchange(x, slot_item, load, a, p, b, q)
        over[p], over[q] = mine, other
    return False


@inner
def _next(state: Any) -> Any:
    """The next of 1 .. MOST - 1 (Park and Miller, "Random Number Generators: Good Ones Are Hard to Find", 1988)."""
    return state * 48271 % MOST


@inner
def _over(load: Any, rank: Any, goal: Any) -> Any:
    """Sum over windows of squares above the goal."""
    total = 0.0
    for window in range(len(goal)):
        total += max(load[rank, window] - goal[window], 0.0) ** 2
    return total


@inner
def _exchanged(x: Any, slot_item: Any, load: Any, goal: Any, a: Any, p: Any, b: Any, q: Any, limit: Any) -> Any:
    """`_over` of both ranks after slots a and b have changed items; stops early once their sum is above `limit`."""
    mine, other = 0.0, 0.0
    for window in range(len(goal)):
        more = x[slot_item[a], window] - x[slot_item[b], window]
        mine += max(load[p, window] - more - goal[window], 0.0) ** 2
        other += max(load[q, window] + more - goal[window], 0.0) ** 2
        if mine + other > limit:
            break
    return mine, other
