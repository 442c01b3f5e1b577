"""Residual grids: what the analytic form leaves over, as a sum of grids over one to three coordinates each.

ln(measured / form) is a sum of multilinear grids on evenly spaced knots of log2 coordinates, held constant beyond their
edges and clipped. A file holds one row per operator: the axes of its grids, and values in thousandths.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import interpreted
from moesim.costs.grid_kernel import MOST_AXES, FlatGrids, summed
from moesim.errors import BadInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CLIP: Final = 1.5  # a residual beyond a factor of 4.5 is another kernel, not this form's to describe
UNIT: Final = 1e-3
BLOCK: Final = 8192  # rows looked up at a time: what they need stays in a core's cache


class Axis(NamedTuple):
    """Knots start, start + step, ... of one of the log2 coordinates of a Demand, by its number."""

    coordinate: int
    start: float
    step: float
    knots: int


@dataclass(frozen=True)
class Grid:
    """axes; values float64[knots of each axis]."""

    axes: tuple[Axis, ...]
    values: Floats


@dataclass(frozen=True)
class ResidualGrid:
    """A sum of grids."""

    grids: tuple[Grid, ...]

    def at(self, coordinates: Sequence[Floats]) -> Floats:
        """log2 coordinates float64[...] each -> factor float64[...]."""
        wide = np.broadcast_arrays(*coordinates)
        rows = np.stack([column.ravel() for column in wide])
        blocks = [self._sum(rows[:, begin : begin + BLOCK]) for begin in range(0, rows.shape[1], BLOCK)]
        factor: Floats = np.exp(np.clip(np.concatenate([np.zeros(0), *blocks]), -CLIP, CLIP))
        return factor.reshape(wide[0].shape)

    def _sum(self, rows: Floats) -> Floats:
        """float64[coordinates, rows] -> the sum of all grids, float64[rows]."""
        if interpreted():
            return self.in_arrays(rows)
        total = np.empty(rows.shape[1])
        summed(rows, self._flat, total)
        return total

    def in_arrays(self, rows: Floats) -> Floats:
        """The same by numpy alone, for a process that compiles nothing."""
        low, part = self._axes.locate(rows)
        total: Floats = np.sum([stack.at(low, part) for stack in self._stacks], axis=0)
        return total

    @cached_property
    def _flat(self) -> FlatGrids:
        coordinate, start, step, last = self._axes.columns
        widths = [MOST_AXES - stack.axes.shape[1] for stack in self._stacks]
        number = np.concatenate([np.full(len(one.first), one.axes.shape[1]) for one in self._stacks])
        pairs = list(zip(self._stacks, widths, strict=True))
        axis, stride = (
            np.concatenate([np.pad(getattr(one, name), ((0, 0), (0, more))) for one, more in pairs])
            for name in ("axes", "strides")
        )
        begins = np.cumsum([0, *(len(one.flat) for one in self._stacks)])
        first = np.concatenate([one.first + begin for one, begin in zip(self._stacks, begins, strict=False)])
        values = np.concatenate([one.flat for one in self._stacks])
        ends = (start.ravel(), step.ravel(), last.ravel())
        return FlatGrids(coordinate, *ends, number, axis, stride, first, values)

    @cached_property
    def _axes(self) -> Axes:
        return Axes(tuple(dict.fromkeys(axis for grid in self.grids for axis in grid.axes)))

    @cached_property
    def _stacks(self) -> tuple[Stack, ...]:
        orders = sorted({len(grid.axes) for grid in self.grids})
        return tuple(Stack([grid for grid in self.grids if len(grid.axes) == n], self._axes.axes) for n in orders)


@dataclass(frozen=True)
class Axes:
    """Several axes, on which rows are located together."""

    axes: tuple[Axis, ...]

    def locate(self, rows: Floats) -> tuple[Ints, Floats]:
        """float64[coordinates, rows] -> the knot at or below each value and the fraction of a step beyond it, [axes,
        rows]; values outside sit at the ends.
        """
        coordinate, start, step, last = self.columns
        position = np.clip((rows[coordinate] - start) / step, 0.0, last)
        low = np.minimum(position.astype(np.int64), np.maximum(last.astype(np.int64) - 1, 0))
        return low, position - low

    @cached_property
    def columns(self) -> tuple[Ints, Floats, Floats, Floats]:
        """coordinate int64[axes], start, step, last knot float64[axes, 1]."""
        coordinate, start, step, knots = (np.array(column) for column in zip(*self.axes, strict=True))
        return coordinate, start[:, None], step[:, None], knots[:, None] - 1.0


class Stack:
    """Grids of equally many axes, looked up together. Each has a knot to spare at its upper ends, so that an axis with
    a single knot needs no case of its own.
    """

    def __init__(self, grids: Sequence[Grid], axes: Sequence[Axis]) -> None:
        padded = [np.pad(grid.values, [(0, 1)] * grid.values.ndim, mode="edge") for grid in grids]
        strides = np.array([np.array(one.strides) // one.itemsize for one in padded])
        self.flat = np.concatenate([one.ravel() for one in padded])
        self.first = np.cumsum([0, *(one.size for one in padded[:-1])])
        self.strides, self.axes = strides, np.array([[axes.index(axis) for axis in grid.axes] for grid in grids])

    def at(self, low: Ints, part: Floats) -> Floats:
        """Where rows lie on all axes, [axes, rows] each -> the sum of the grids, float64[rows]."""
        index, strides = self.first[:, None], list(self.strides.T[:, :, None])
        for axis, stride in zip(self.axes.T, strides, strict=True):
            index = index + low[axis] * stride
        total: Floats = self._between(index, strides, [part[axis] for axis in self.axes.T]).sum(axis=0)
        return total

    def _between(self, index: Ints, strides: Sequence[Ints], parts: Sequence[Floats]) -> Floats:
        """int64[grids, rows] -> values between the knots there and the next ones, axis by axis."""
        if not strides:
            return self.flat.take(index)
        below = self._between(index, strides[1:], parts[1:])
        above = self._between(index + strides[0], strides[1:], parts[1:])
        above -= below
        above *= parts[0]
        above += below
        return above


def digest(packed: bytes) -> str:
    """What a profile's YAML says of the file of its grids."""
    return hashlib.sha256(packed).hexdigest()


def read_grids(path: Path, sha256: str) -> dict[str, ResidualGrid]:
    """The grids of a profile, from the file of that digest. Raises BadInput on a missing, damaged or other file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        packed = path.read_bytes()
    except OSError as error:
        raise BadInput(f"the profile's residual grids cannot be read: {error.strerror}", where=path) from None
    if digest(packed) != sha256:
        raise BadInput("damaged, or the residual grids of another profile", where=path, way_out="both files of one fit")
    try:
        rows = pq.read_table(io.BytesIO(packed), page_checksum_verification=True, use_threads=False)
        names, *columns = ([row.values for row in rows[c]] if c != "operator" else rows[c].to_pylist() for c in COLUMNS)
        return {
            name: _sum_of_grids(*(column.to_numpy(zero_copy_only=False) for column in row))
            for name, *row in zip(names, *columns, strict=True)
        }
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise BadInput(f"damaged residual grid: {str(error).splitlines()[0]}", where=path) from None


COLUMNS: Final = ("operator", "axes", "coordinate", "start", "step", "knots", "value")


def _sum_of_grids(
    axes: npt.NDArray[np.int32], coordinate: npt.NDArray[np.int32], start: Floats, step: Floats,
    knots: npt.NDArray[np.int32], value: npt.NDArray[np.int16],
) -> ResidualGrid:  # fmt: skip
    """axes: how many each grid has; of all axes in a row: coordinate, start, step, knots; values of all grids."""
    every = [Axis(*one) for one in zip(*(c.tolist() for c in (coordinate, start, step, knots)), strict=True)]
    ends = np.cumsum(axes)
    own = [tuple(every[end - count : end]) for end, count in zip(ends.tolist(), axes.tolist(), strict=True)]
    shapes = [[axis.knots for axis in grid] for grid in own]
    sizes = [int(np.prod(shape)) for shape in shapes]
    if len(value) != sum(sizes):
        raise ValueError(f"{len(value)} values for {sum(sizes)} knots")
    parts = np.split(value * UNIT, np.cumsum(sizes)[:-1])
    return ResidualGrid(
        tuple(Grid(grid, part.reshape(shape)) for grid, part, shape in zip(own, parts, shapes, strict=True))
    )


def packed_grids(grids: Mapping[str, ResidualGrid]) -> bytes:
    """Grids -> the content of a Parquet file with page checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_row(name, residual) for name, residual in sorted(grids.items())]
    counted, measured = pa.list_(pa.int32()), pa.list_(pa.float64())
    kinds = (pa.string(), counted, counted, measured, measured, counted, pa.list_(pa.int16()))
    columns = zip(*rows, strict=True) if rows else ([] for _ in kinds)
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, kinds, strict=True)]
    file = io.BytesIO()
    pq.write_table(
        pa.table(dict(zip(COLUMNS, arrays, strict=True))), file, compression="zstd", write_page_checksum=True
    )
    return file.getvalue()


def _row(name: str, residual: ResidualGrid) -> tuple[object, ...]:
    """See COLUMNS."""
    axes = [axis for grid in residual.grids for axis in grid.axes]
    values = np.concatenate([grid.values.ravel() for grid in residual.grids])
    counts = [len(grid.axes) for grid in residual.grids]
    return name, counts, *map(list, zip(*axes, strict=True)), np.rint(values / UNIT).astype(np.int16)
