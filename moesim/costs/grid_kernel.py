"""Residual grids looked up by compiled code: what `Axes` and `Stack` of costs/grid.py say, to the bit, row by row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MOST_AXES = 3  # of a grid


class FlatGrids(NamedTuple):
    """coordinate int64[axes], start, step, last float64[axes]: of each axis; of each grid, those with as many axes side
    by side: axes int64[grids] how many, axis, stride int64[grids, 3], first int64[grids]: where its values begin in
    values float64[...], which have a knot to spare at their upper ends.
    """

    coordinate: Ints
    start: Floats
    step: Floats
    last: Floats
    axes: Ints
    axis: Ints
    stride: Ints
    first: Ints
    values: Floats


@njit
def summed(rows: Any, grids: Any, total: Any) -> None:
    """rows float64[coordinates, n] -> total float64[n]: the sum of all grids, grids of as many axes first."""
    axes = grids.coordinate.shape[0]
    low, part, corner = np.empty(axes, np.int64), np.empty(axes, np.float64), np.empty(1 << MOST_AXES, np.float64)
    for row in range(rows.shape[1]):
        for axis in range(axes):
            position = (rows[grids.coordinate[axis], row] - grids.start[axis]) / grids.step[axis]
            position = min(max(position, 0.0), grids.last[axis])
            low[axis] = min(np.int64(position), max(np.int64(grids.last[axis]) - 1, 0))
            part[axis] = position - low[axis]
        found, alike = 0.0, 0.0
        for grid in range(grids.first.shape[0]):
            if grid > 0 and grids.axes[grid] != grids.axes[grid - 1]:
                found, alike = found + alike, 0.0
            number, begin = grids.axes[grid], grids.first[grid]
            for one in range(number):
                begin += low[grids.axis[grid, one]] * grids.stride[grid, one]
            for which in range(1 << number):
                place = begin
                for one in range(number):
                    place += grids.stride[grid, one] * ((which >> (number - 1 - one)) & 1)
                corner[which] = grids.values[place]
            for one in range(number - 1, -1, -1):
                share = part[grids.axis[grid, one]]
                for pair in range(1 << one):
                    corner[pair] = (corner[2 * pair + 1] - corner[2 * pair]) * share + corner[2 * pair]
            alike += corner[0]
        total[row] = found + alike
