"""Links that can be full: the others may be left out of a fluid network without changing any rate.

Whatever passes link l has just passed one of the links before it, so l never carries more than those let through:

    capacity_l > sum over links k from which some path enters l of capacity_k

and the same with the links behind it. A constraint that others imply changes no max-min fair rate. Every reason is a
link of less capacity, so that reasons never go round in a circle, and the narrowest link of a path always stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.compiled import inlined, njit

MARGIN = 1e-9  # relative: sums of rates are rounded
SPREAD = 0x9E3779B97F4A7C1  # an odd number with mixed bits: neighbours get places far apart
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def can_fill(capacity: Floats, paths: Iterable[Int32s]) -> npt.NDArray[np.bool_]:
    """capacity float64[L] B/s, paths int32[F, hops] of all flows there may be, -1 padded -> bool[L]."""
    before, behind = np.zeros(len(capacity)), np.zeros(len(capacity))
    seen, count = np.full(1024, -1, dtype=np.int64), 0
    for path in paths:
        seen = _roomier(seen, count, path.size)
        count += _add_neighbours(path, capacity, seen, before, behind)
    return np.asarray(capacity <= np.minimum(before, behind) * (1 + MARGIN))


def _roomier(seen: npt.NDArray[np.int64], count: int, more: int) -> npt.NDArray[np.int64]:
    """The same pairs in a table that is at most half full with `more` of them."""
    if 2 * (count + more) <= len(seen):
        return seen
    table = np.full(1 << (2 * (count + more)).bit_length(), -1, dtype=np.int64)
    _enter_all(table, seen[seen >= 0])
    return table


@njit
def _enter_all(table: Any, pairs: Any) -> None:
    for pair in pairs:
        _is_new(table, pair)


@njit
def _add_neighbours(path: Any, capacity: Any, seen: Any, before: Any, behind: Any) -> int:
    """Pairs of links that follow each other, each counted once -> how many are new."""
    count, links = 0, capacity.shape[0]
    for flow in range(path.shape[0]):
        last = -1
        for hop in range(path.shape[1]):
            link = path[flow, hop]
            if link < 0:
                break
            if last < 0:
                before[link] = np.inf
            elif _is_new(seen, np.int64(last) * links + link):
                before[link] += capacity[last]
                behind[last] += capacity[link]
                count += 1
            last = link
        if last >= 0:
            behind[last] = np.inf
    return count


@inlined
def _is_new(table: Any, pair: Any) -> Any:
    """Enter a pair into a table of open addresses -> whether it was not there."""
    mask = table.shape[0] - 1
    at = ((pair * SPREAD) >> 20) & mask
    while table[at] >= 0 and table[at] != pair:
        at = (at + 1) & mask
    new = table[at] < 0
    table[at] = pair
    return new


@njit
def narrowed(path: Any, number: Any) -> Any:
    """path int32[F, hops], number int32[L] of links, -1 where one is left out -> int32[F, as many as stay]."""
    width = 1
    for flow in range(path.shape[0]):
        kept = 0
        for hop in range(path.shape[1]):
            kept += path[flow, hop] >= 0 and number[path[flow, hop]] >= 0
        width = max(width, kept)
    left = np.full((path.shape[0], width), -1, np.int32)
    for flow in range(path.shape[0]):
        kept = 0
        for hop in range(path.shape[1]):
            if path[flow, hop] >= 0 and number[path[flow, hop]] >= 0:
                left[flow, kept] = number[path[flow, hop]]
                kept += 1
    return left
