"""Residual grids: what the analytic form leaves over, as a sum of two-dimensional grids over pairs of coordinates.

ln(measured / form) is a sum over pairs (a, b) of bilinear grids on evenly spaced knots of log2 coordinates, held
constant beyond their edges and clipped. A file holds one row per operator: knots, pairs, and values in thousandths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Floats = npt.NDArray[np.float64]
CLIP: Final = 1.5  # a residual beyond a factor of 4.5 is another kernel, not this form's to describe
UNIT: Final = 1e-3


class Axis(NamedTuple):
    """Knots start, start + step, ... of one log2 coordinate."""

    start: float
    step: float
    knots: int

    def locate(self, values: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
        """The knot at or below each value and the fraction of a step beyond it; values outside sit at the ends."""
        position = np.clip((values - self.start) / self.step, 0.0, self.knots - 1.0)
        low = np.minimum(position.astype(np.int64), max(self.knots - 2, 0))
        return low, position - low


@dataclass(frozen=True)
class ResidualGrid:
    """axes of all coordinates; pairs of axes; values: one float64[knots a, knots b] per pair."""

    axes: tuple[Axis, ...]
    pairs: tuple[tuple[int, int], ...]
    values: tuple[Floats, ...]

    def at(self, coordinates: Sequence[Floats]) -> Floats:
        """log2 coordinates float64[...] each -> factor float64[...]."""
        wide = np.broadcast_arrays(*coordinates)
        located = [axis.locate(values) for axis, values in zip(self.axes, wide, strict=True)]
        total = np.zeros(wide[0].shape)
        for (a, b), padded in zip(self.pairs, self._padded, strict=True):
            total += _bilinear(padded, *located[a], *located[b])
        factor: Floats = np.exp(np.clip(total, -CLIP, CLIP))
        return factor

    @cached_property
    def _padded(self) -> tuple[Floats, ...]:
        """values with one more knot on each axis, so that an axis with a single knot needs no case of its own."""
        return tuple(np.pad(values, ((0, 1), (0, 1)), mode="edge") for values in self.values)


def _bilinear(
    padded: Floats, low_a: npt.NDArray[np.int64], part_a: Floats, low_b: npt.NDArray[np.int64], part_b: Floats
) -> Floats:
    """Of a grid with a knot to spare at its upper ends."""
    flat, width = padded.ravel(), padded.shape[1]
    index = low_a * width + low_b
    below = flat.take(index)
    below += (flat.take(index + 1) - below) * part_b
    index += width
    above = flat.take(index)
    above += (flat.take(index + 1) - above) * part_b
    found: Floats = below + (above - below) * part_a
    return found


def read_grids(path: Path) -> dict[str, ResidualGrid]:
    """The grids of a profile, {} where the file does not exist. Raises BadInput on a damaged file."""
    if not path.exists():
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, page_checksum_verification=True, use_threads=False).to_pydict()
        return {name: _grid(*columns) for name, *columns in zip(*(rows[c] for c in COLUMNS), strict=True)}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise BadInput(f"damaged residual grid: {str(error).splitlines()[0]}", where=path) from None


COLUMNS: Final = ("operator", "start", "step", "knots", "pair", "value")


def _grid(start: list[float], step: list[float], count: list[int], pair: list[int], value: list[int]) -> ResidualGrid:
    axes = tuple(Axis(*knots) for knots in zip(start, step, count, strict=True))
    pairs = tuple((a, b) for a, b in zip(pair[::2], pair[1::2], strict=True))
    sizes = [axes[a].knots * axes[b].knots for a, b in pairs]
    flat = np.asarray(value, dtype=np.float64) * UNIT
    if len(flat) != sum(sizes):
        raise ValueError(f"{len(flat)} values for {sum(sizes)} knots")
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    values = tuple(part.reshape(axes[a].knots, axes[b].knots) for part, (a, b) in zip(parts, pairs, strict=True))
    return ResidualGrid(axes, pairs, values)


def packed_grids(grids: Mapping[str, ResidualGrid]) -> bytes:
    """Grids -> the content of a Parquet file with page checksums."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        (name, *(list(column) for column in zip(*grid.axes, strict=True)), [i for pair in grid.pairs for i in pair],
         np.concatenate([np.rint(values / UNIT).ravel() for values in grid.values]).astype(np.int16))
        for name, grid in sorted(grids.items())
    ]  # fmt: skip
    kinds = (pa.string(), pa.list_(pa.float64()), pa.list_(pa.float64()), pa.list_(pa.int32()), pa.list_(pa.int32()),
             pa.list_(pa.int16()))  # fmt: skip
    columns = zip(*rows, strict=True) if rows else ([] for _ in kinds)
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, kinds, strict=True)]
    file = io.BytesIO()
    pq.write_table(
        pa.table(dict(zip(COLUMNS, arrays, strict=True))), file, compression="zstd", write_page_checksum=True
    )
    return file.getvalue()
