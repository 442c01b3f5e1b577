"""What experts take with the rows of their slots: each shape priced once, kept as ticks, and found again compiled."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.costs import Estimate
from moesim.costs.shapes import Rows
from moesim.costs.tables import Tables, never_alone
from moesim.step.ops import LayerOps
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
BITS: Final = (22, 9, 18, 14)  # of all rows, active slots, most rows of one, rows that fill up tiles
UNKNOWN: Final = -1
FULL: Final = 0.75  # of a table: a day has millions of shapes, and a table twice as large is 128 MB more
TOGETHER: Final = 256  # shapes, with their neighbours, priced at once: more are priced in vain, and fill caches


class ExpertPrices:
    """Ticks of the experts of one rank, beside communication that stretches them by `slowdown`."""

    def __init__(self, ops: LayerOps, slowdown: float) -> None:
        self._ops, self._slowdown = ops, slowdown
        self._costs = ops.costs.asked if isinstance(ops.costs, Tables) else ops.costs
        self._tile = self._costs.expert_tile(ops.precision.experts)
        self._kept = np.zeros((1 << 12, 2), dtype=np.int64)  # keys (0: free) and ticks, by hash
        self._known = 0

    def ps(self, by_rank: Int64s) -> Int64s:
        """int64[..., slots] rows -> int64[...] ps."""
        rows = by_rank.reshape(-1, by_rank.shape[-1])
        shapes, found = np.empty((len(rows), 4), dtype=np.int64), np.full(len(rows), UNKNOWN)
        shapes_of(rows, self._tile, shapes)
        if look_up(shapes, self._kept, found):
            self._learn(shapes, found)
            if look_up(shapes, self._kept, found):
                odd = found == UNKNOWN  # too large to be kept
                found[odd] = self._priced(shapes[odd])
        return found.reshape(by_rank.shape[:-1])

    def _learn(self, shapes: Int64s, found: Int64s) -> None:
        """Price what is new, and what is likely to be asked for next."""
        wanted = np.empty((len(shapes) + TOGETHER, 4), dtype=np.int64)
        seen = np.zeros(1 << (2 * len(wanted)).bit_length(), dtype=np.int64)
        wanted = wanted[: around(shapes, found, wanted, seen)]
        if not len(wanted):
            return
        while self._known + len(wanted) > FULL * len(self._kept):
            wider = np.zeros((2 * len(self._kept), 2), dtype=np.int64)  # by numpy, which asks for large pages
            spread_out(self._kept, wider)
            self._kept = wider
        self._known += keep(wanted, self._priced(wanted), self._kept)

    def _priced(self, shapes: Int64s) -> Int64s:
        """int64[n, 4] -> int64[n] ps, in one call."""
        ops, model = self._ops, self._ops.model
        width = (model.row_width, ops.spread.expert_width, ops.precision.experts, model.expert_matrices)
        total, active, most, filled = shapes.T

        def ask(*columns: Int64s) -> Estimate:
            return self._costs.experts_of(Rows(*(column.astype(np.float64) for column in columns)), *width)

        estimate = never_alone(ask, [total, active, most, total + filled])
        return to_ps(ops.log.seconds([estimate]).stretched(self._slowdown).total)


@njit
def shapes_of(rows: Any, tile: int, shapes: Any) -> None:
    """rows int64[n, slots] -> shapes int64[n, 4]."""
    for row in range(rows.shape[0]):
        total, active, most, whole = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for slot in range(rows.shape[1]):
            size = rows[row, slot]
            total += size
            active += size > 0
            most = max(most, size)
            whole += (size + (tile - 1)) & -tile
        shapes[row, 0], shapes[row, 1], shapes[row, 2], shapes[row, 3] = total, active, most, whole - total


@njit
def look_up(shapes: Any, kept: Any, found: Any) -> Any:
    """Fills in found int64[n] where it is UNKNOWN, of shapes int64[n, 4] that are kept -> how many are not.

    Apart from `shapes_of`, so that several places of a large table are on their way at once.
    """
    missing = 0
    for row in range(shapes.shape[0]):
        if found[row] == UNKNOWN:
            place = _place(shapes[row], kept)
            if place >= 0 and kept[place, 0] != 0:
                found[row] = kept[place, 1]
            else:
                missing += 1
    return missing


@njit
def around(shapes: Any, found: Any, wanted: Any, seen: Any) -> Any:
    """Those of shapes int64[n, 4] that are UNKNOWN and fit, and then their neighbours: other totals in as many tiles,
    other most rows; each once, into `wanted` -> how many. The more there are, the fewer neighbours of each, TOGETHER at
    most; none in a first batch, which has thousands. seen: a set, empty.
    """
    many = 0
    for row in range(shapes.shape[0]):
        if found[row] == UNKNOWN:
            many = _want(shapes[row, 0], shapes[row, 1], shapes[row, 2], shapes[row, 3], wanted, many, seen)
    asked, width = many, np.int64(1)
    while 4 * width * width * max(asked, 1) <= TOGETHER:
        width *= 2
    for one in range(asked):
        first, active = wanted[one, 0] // width * width, wanted[one, 1]
        high, whole = wanted[one, 2] // width * width, wanted[one, 0] + wanted[one, 3]
        for total in range(first, first + width):
            for most in range(high, high + width):
                if total <= whole and most <= total and active * most >= total:
                    many = _want(total, active, most, whole - total, wanted, many, seen)
    return many


@njit
def _want(total: int, active: int, most: int, filled: int, wanted: Any, many: int, seen: Any) -> Any:
    """One more of them, where it fits and is not there yet -> how many there are."""
    if not _fits(total, active, most, filled):
        return many
    key = _key(total, active, most, filled)
    place = _first(key, seen)
    if seen[place] == 0:
        seen[place] = key
        wanted[many, 0], wanted[many, 1], wanted[many, 2], wanted[many, 3] = total, active, most, filled
        many += 1
    return many


@njit
def keep(shapes: Any, ticks: Any, kept: Any) -> Any:
    """Shapes int64[n, 4] that fit and their ticks int64[n] -> how many of them are new."""
    new = 0
    for row in range(shapes.shape[0]):
        place = _place(shapes[row], kept)
        new += kept[place, 0] == 0
        kept[place, 0] = _key(shapes[row, 0], shapes[row, 1], shapes[row, 2], shapes[row, 3])
        kept[place, 1] = ticks[row]
    return new


@njit
def spread_out(kept: Any, wider: Any) -> None:
    """The same in more room."""
    for place in range(kept.shape[0]):
        if kept[place, 0] != 0:
            free = _first(kept[place, 0], wider[:, 0])
            wider[free, 0], wider[free, 1] = kept[place, 0], kept[place, 1]


@njit
def _place(shape: Any, kept: Any) -> Any:
    """Where a shape is kept, or would be; -1 where it is too large to be."""
    if not _fits(shape[0], shape[1], shape[2], shape[3]):
        return -1
    return _first(_key(shape[0], shape[1], shape[2], shape[3]), kept[:, 0])


@njit
def _fits(total: int, active: int, most: int, filled: int) -> Any:
    """Do they have bits enough?"""
    return not (total >> BITS[0] or active >> BITS[1] or most >> BITS[2] or filled >> BITS[3])


@njit
def _first(key: int, keys: Any) -> Any:
    """The place of a key, or the first free one after where its hash points to."""
    mask = keys.shape[0] - 1
    place = ((key * 0x9E3779B97F4A7C1) >> 24) & mask
    while keys[place] != 0 and keys[place] != key:
        place = (place + 1) & mask
    return place


@njit
def _key(total: int, active: int, most: int, filled: int) -> Any:
    """Never 0."""
    return (((total << BITS[1] | active) << BITS[2] | most) << BITS[3] | filled) + 1
