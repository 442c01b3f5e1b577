"""Compiled: exchanges at random within one layer, so that the sum over windows of the slowest rank's load falls.

Exchanges that lower the sum of peaks get stuck: each window has another slowest rank, and most exchanges touch none of
them. A soft peak, ln(sum over ranks of exp(sharp x load)) / sharp, tells nearly all exchanges apart and is sharpened
until it is the peak itself. Sums are loops, and exp and ln those of `math`: the same to the bit when Python runs this.
Source of the rule by which worse ones are taken: Metropolis et al. (1953); Kirkpatrick, Gelatt, Vecchi, "Optimization
by Simulated Annealing" (1983).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from moesim.compiled import inner, njit
from moesim.placement.search.kernels import carries, exchange

# On made-up layers (384 experts on 144 ranks, 48 spare, 8 windows): mean peak 1.2262 before; 1.2162 with these, 1.2173
# when sharpened to 300 only, 1.2200 to 150, 1.2215 three times as hot.
BLUNT, SHARP = 40.0, 1000.0  # one over a fair share, at the beginning and the end
HOT, COLD = 1e-3, 3e-5  # temperature at the beginning and the end, in fair shares
ROUND = 2000  # trials at one temperature
MOST = 2**31 - 1
TINY = 1e-300  # where an exchange leaves all ranks far below the peak that was
NOTHING = -25.0  # 1e-11 of the slowest rank


@njit
def soften(
    x: Any, slot_item: Any, of: Any, ptr: Any, owner: Any, load: Any, enough: Any, trials: Any, seed: Any
) -> Any:
    """x [items, W], load [ranks, W] and slot_item [slots] as in `kernels`, in units of a fair share, ranks of equal
    speed -> the best slot_item met, int64[slots]; ends once the sum of peaks is `enough`."""
    windows, rounds = load.shape[1], trials // ROUND
    soft, top, total = np.empty((windows, load.shape[0])), np.empty(windows), np.empty(windows)
    mine, other = np.empty(windows), np.empty(windows)
    sharp, heat, state, best, kept = BLUNT, HOT, _next(seed + 1), np.inf, slot_item.copy()
    for _ in range(rounds):
        peaks = _weigh(load, sharp, soft, top, total)
        if peaks < best:
            best, kept[:] = peaks, slot_item
        if best <= enough:
            break
        state = _round(x, slot_item, of, ptr, owner, load, sharp, heat, state, soft, top, total, mine, other)
        sharp *= (SHARP / BLUNT) ** (1 / rounds)
        heat *= (COLD / HOT) ** (1 / rounds)
    return kept


@njit
def _weigh(load: Any, sharp: Any, soft: Any, top: Any, total: Any) -> Any:
    """Fills soft [W, ranks] = exp(sharp x (load - top)), top [W] the peaks, total [W]; gives the sum of peaks."""
    peaks = 0.0
    for window in range(len(top)):
        top[window], total[window] = load[:, window].max(), TINY
        for rank in range(load.shape[0]):
            soft[window, rank] = _soft(sharp * (load[rank, window] - top[window]))
            total[window] += soft[window, rank]
        peaks += top[window]
    return peaks


@njit
def _round(
    x: Any, slot_item: Any, of: Any, ptr: Any, owner: Any, load: Any, sharp: Any, heat: Any, state: Any, soft: Any,
    top: Any, total: Any, mine: Any, other: Any,
) -> Any:  # fmt: skip
    """ROUND trials; the state of the random numbers after them. mine, other [W]: room to work in."""
    for _ in range(ROUND):
        state = _next(state)
        a = state % len(slot_item)
        state = _next(state)
        b = state % len(slot_item)
        state = _next(state)
        p, q = owner[a], owner[b]
        if p == q:
            continue
        change = _changed(x[slot_item[a]], x[slot_item[b]], load, sharp, p, q, soft, top, total, mine, other)
        if change > -heat * sharp * math.log(state / MOST):
            continue
        if carries(slot_item, of, ptr, p, of[slot_item[b]]) or carries(slot_item, of, ptr, q, of[slot_item[a]]):
            continue
        exchange(x, slot_item, load, a, p, b, q)
        for window in range(len(top)):
            if soft[window, p] != mine[window] or soft[window, q] != other[window]:
                soft[window, p], soft[window, q] = mine[window], other[window]
                total[window] = TINY
                for rank in range(soft.shape[1]):
                    total[window] += soft[window, rank]
    return state


@inner
def _changed(
    goes: Any, comes: Any, load: Any, sharp: Any, p: Any, q: Any, soft: Any, top: Any, total: Any, mine: Any, other: Any
) -> Any:
    """What an exchange of items with loads `goes` [W] of p and `comes` [W] of q adds to sharp x the sum of soft peaks,
    to the first order; fills mine, other [W], the two ranks' soft loads after it."""
    change = 0.0
    for window in range(len(top)):
        more = comes[window] - goes[window]
        mine[window] = _soft(sharp * (load[p, window] + more - top[window]))
        other[window] = _soft(sharp * (load[q, window] - more - top[window]))
        change += (mine[window] + other[window] - soft[window, p] - soft[window, q]) / total[window]
    return change


@inner
def _soft(below: Any) -> Any:
    """exp, or 0 where a rank is so far below the peak that all ranks together would not show."""
    return math.exp(below) if below > NOTHING else 0.0


@inner
def _next(state: Any) -> Any:
    """The next of 1 .. MOST - 1 (Park and Miller, "Random Number Generators: Good Ones Are Hard to Find", 1988)."""
    return state * 48271 % MOST
