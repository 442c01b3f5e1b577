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
        shapes, found = np.empty((len(rows), 4), dtype=np.int64), np.empty(len(rows), dtype=np.int64)
        if find(rows, self._tile, self._kept, shapes, found):
            missing = np.flatnonzero(found < 0)
            self._learn(shapes[missing])
            again = np.empty(len(missing), dtype=np.int64)
            find(rows[missing], self._tile, self._kept, shapes[missing], again)
            found[missing] = again
            odd = missing[again < 0]  # too large to be kept
            found[odd] = self._priced(shapes[odd]) if len(odd) else 0
        return found.reshape(by_rank.shape[:-1])

    def _learn(self, shapes: Int64s) -> None:
        """Price what is new, and what is likely to be asked for next."""
        asked = _different(shapes[np.all(shapes >> np.array(BITS) == 0, axis=1)])
        wanted = _different(_around(asked))
        if not len(wanted):
            return
        while 2 * (self._known + len(wanted)) > len(self._kept):
            self._kept = grown(self._kept)
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


def _different(shapes: Int64s) -> Int64s:
    """int64[n, 4] that fit -> each once."""
    total, active, most, filled = shapes.T
    packed = ((total << BITS[1] | active) << BITS[2] | most) << BITS[3] | filled
    return shapes[np.unique(packed, return_index=True)[1]]


def _around(shapes: Int64s) -> Int64s:
    """int64[n, 4] -> they and their neighbours: other totals in as many tiles, other most rows. The more there are, the
    fewer each; none in a first batch, which has thousands.
    """
    width = 1 << (max(TOGETHER // max(len(shapes), 1), 1).bit_length() - 1) // 2
    step = np.arange(width)
    total = (shapes[:, 0, None] // width * width + step)[:, :, None]
    most = (shapes[:, 2, None] // width * width + step)[:, None, :]
    whole, active = ((shapes[:, 0] + shapes[:, 3])[:, None, None], shapes[:, 1, None, None])
    columns = np.broadcast_arrays(total, active, most, whole - total)
    near = np.stack([column.ravel() for column in columns], axis=1)
    possible = (near[:, 3] >= 0) & (near[:, 2] <= near[:, 0]) & (near[:, 1] * near[:, 2] >= near[:, 0])
    possible &= np.all(near >> np.array(BITS) == 0, axis=1)
    return np.concatenate((shapes, near[possible]))


@njit
def find(rows: Any, tile: int, kept: Any, shapes: Any, found: Any) -> Any:
    """rows int64[n, slots] -> how many shapes are not kept; fills shapes int64[n, 4], found int64[n]: -1 for those.

    In two loops, so that the second has several places of a large table on their way at once.
    """
    for row in range(rows.shape[0]):
        total, active, most, whole = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for slot in range(rows.shape[1]):
            size = rows[row, slot]
            total += size
            active += size > 0
            most = max(most, size)
            whole += (size + (tile - 1)) & -tile
        shapes[row, 0], shapes[row, 1], shapes[row, 2], shapes[row, 3] = total, active, most, whole - total
    missing = 0
    for row in range(rows.shape[0]):
        place = _place(shapes[row], kept)
        found[row] = kept[place, 1] if place >= 0 and kept[place, 0] != 0 else -1
        missing += found[row] < 0
    return missing


@njit
def keep(shapes: Any, ticks: Any, kept: Any) -> Any:
    """Shapes int64[n, 4] that fit and their ticks int64[n] -> how many of them are new."""
    new = 0
    for row in range(shapes.shape[0]):
        place = _place(shapes[row], kept)
        new += kept[place, 0] == 0
        kept[place, 0], kept[place, 1] = _key(shapes[row]), ticks[row]
    return new


@njit
def grown(kept: Any) -> Any:
    """Twice the room for the same."""
    wider = np.zeros((2 * kept.shape[0], 2), np.int64)
    for place in range(kept.shape[0]):
        if kept[place, 0] != 0:
            free = _first(kept[place, 0], wider)
            wider[free, 0], wider[free, 1] = kept[place, 0], kept[place, 1]
    return wider


@njit
def _place(shape: Any, kept: Any) -> Any:
    """Where a shape is kept, or would be; -1 where it is too large to be."""
    if shape[0] >> BITS[0] or shape[1] >> BITS[1] or shape[2] >> BITS[2] or shape[3] >> BITS[3]:
        return -1
    return _first(_key(shape), kept)


@njit
def _first(key: int, kept: Any) -> Any:
    """The place of a key, or the first free one after where its hash points to."""
    mask = kept.shape[0] - 1
    place = ((key * 0x9E3779B97F4A7C1) >> 24) & mask
    while kept[place, 0] != 0 and kept[place, 0] != key:
        place = (place + 1) & mask
    return place


@njit
def _key(shape: Any) -> Any:
    """Never 0."""
    return ((((shape[0] << BITS[1]) | shape[1]) << BITS[2] | shape[2]) << BITS[3] | shape[3]) + 1
