"""Fit of a residual grid: penalised least squares, reweighted against outliers (Huber).

First and second differences between neighbouring knots are penalised, so knots without data continue their neighbours.
The normal equations are sparse and are solved by conjugate gradients. How many pieces there are is chosen by penalised
likelihood: of a coarse and a fine grid that with the smaller AIC, the criterion for predictions, is kept: 2 n ln s +
2 effective pieces, s the mean of |error|, as their tails are those of a double exponential.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import linalg

from moesim.costs.grid import UNIT, Axes, Axis, Grid, ResidualGrid
from moesim.costs.shapes import Kind

Floats = npt.NDArray[np.float64]
Grids = list[tuple[Axis, ...]]
AIC: Final = 2.0  # of a piece
JUDGED: Final = 12_000  # rows on which finenesses are compared
HUBER: Final = 0.05  # of the logarithm; repeated measurements differ by 2 to 4 %
REWEIGHTED: Final = 3
RIDGE: Final = 0.1  # of the stiffness
TOLERANCE: Final = 1e-4
ITERATIONS: Final = 600
PROBES: Final = 4  # random signs that estimate a trace (Hutchinson 1990)


def fit_grid(
    kind: Kind, coordinates: Sequence[Floats], left: Floats, fineness: float | None = None
) -> tuple[ResidualGrid, float]:  # fmt: skip
    """ln(measured / form) float64[rows] -> the grid of that fineness, and it; None: of the fineness with the smallest
    AIC on JUDGED rows.
    """
    if fineness is None and len(kind.finenesses) == 1:
        fineness = kind.finenesses[0]
    if fineness is None:
        some = np.sort(np.random.default_rng(0).permutation(len(left))[:JUDGED])
        tries = [score(kind, [column[some] for column in coordinates], left[some], one) for one in kind.finenesses]
        fineness = min(tries, key=lambda one: one.penalised(AIC)).fineness
    grids = _axes(kind, coordinates, fineness)
    return _residual_grid(grids, _fit(grids, kind.stiffness, coordinates, left).values), fineness


class Score(NamedTuple):
    """A grid's octaves between knots, as a factor on the usual; its effective pieces; 2 n ln of the mean |error|."""

    fineness: float
    pieces: float
    misfit: float

    def penalised(self, penalty: float) -> float:
        """`penalty` a piece: AIC for 2, BIC for ln n, and 0 likelihood alone, which never has enough pieces."""
        return self.misfit + penalty * self.pieces


def score(kind: Kind, coordinates: Sequence[Floats], left: Floats, fineness: float) -> Score:
    """ln(measured / form) float64[rows] fitted by a grid of that fineness."""
    found = _fit(_axes(kind, coordinates, fineness), kind.stiffness, coordinates, left)
    spread = max(float(np.mean(np.abs(found.error))), 1e-9)
    return Score(fineness, _trace_of_hat(found.normal, found.rough), float(2 * len(left) * np.log(spread)))


class Found(NamedTuple):
    """values float64[knots], what they leave over float64[rows], and the penalised problem that they solve."""

    values: Floats
    error: Floats
    normal: sparse.csr_matrix
    rough: sparse.csr_matrix


def _fit(grids: Grids, stiffness: float, coordinates: Sequence[Floats], left: Floats) -> Found:
    design, rough = _design(grids, coordinates), _roughness(grids) * stiffness
    weight, values = np.ones(len(left)), np.zeros(design.shape[1])
    for _ in range(REWEIGHTED):
        normal = (design.T @ design.multiply(weight[:, None])).tocsr()
        values = _solve(normal + rough, design.T @ (weight * left), values)
        error = left - design @ values
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(error), 1e-9))
    return Found(values, error, normal, rough)


def _solve(
    matrix: sparse.csr_matrix, right: Floats, start: Floats | None = None, tolerance: float = TOLERANCE
) -> Floats:
    """Symmetric positive definite."""
    scaled = sparse.diags(1 / matrix.diagonal())
    found, _ = linalg.cg(matrix, right, x0=start, rtol=tolerance, maxiter=ITERATIONS, M=scaled)
    return np.asarray(found)


def _trace_of_hat(normal: sparse.csr_matrix, rough: sparse.csr_matrix) -> float:
    """Effective pieces of a penalised fit: the trace of (normal + penalty)^-1 normal, estimated."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(PROBES, normal.shape[0]))
    return float(np.mean([sign @ _solve(normal + rough, normal @ sign, tolerance=1e-2) for sign in signs]))


def _axes(kind: Kind, coordinates: Sequence[Floats], fineness: float) -> Grids:
    numbers = {name: number for number, name in enumerate(kind.coordinates)}
    return [
        tuple(_axis(numbers[name], coordinates[numbers[name]], step * fineness) for name, step in grid.items())
        for grid in kind.grids
    ]


def _axis(number: int, values: Floats, step: float) -> Axis:
    low, high = np.floor(values.min() / step + 1e-9), np.ceil(values.max() / step - 1e-9)
    return Axis(number, float(low * step), step, int(max(high - low, 0)) + 1)


def _size(grid: tuple[Axis, ...]) -> int:
    return int(np.prod([axis.knots for axis in grid]))


def _design(grids: Grids, coordinates: Sequence[Floats]) -> sparse.csr_matrix:
    """float64[rows, knots of all grids]: each row holds the weights of the corners around it, 2^axes a grid."""
    every = Axes(tuple(dict.fromkeys(axis for grid in grids for axis in grid)))
    located = dict(zip(every.axes, zip(*every.locate(np.stack(coordinates)), strict=True), strict=True))
    rows, parts, offset = np.arange(len(coordinates[0])), [], 0
    for grid in grids:
        for corner in itertools.product((0, 1), repeat=len(grid)):
            weight, knot = np.ones(len(rows)), np.zeros(len(rows), dtype=np.int64)
            for axis, up in zip(grid, corner, strict=True):
                low, part = located[axis]
                weight = weight * (part if up else 1 - part)
                knot = knot * axis.knots + np.minimum(low + up, axis.knots - 1)
            parts.append((weight, rows, offset + knot))
        offset += _size(grid)
    weights, row, column = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sparse.csr_matrix((weights, (row, column)), shape=(len(rows), offset))


def _roughness(grids: Grids) -> sparse.csr_matrix:
    """float64[knots, knots]: first and second differences along each axis of each grid, and a ridge."""
    blocks = []
    for grid in grids:
        block = RIDGE * sparse.identity(_size(grid), format="csr")
        for along, order in itertools.product(range(len(grid)), (1, 2)):
            term = sparse.identity(1, format="csr")
            for number, axis in enumerate(grid):
                own = _differences(axis.knots, order) if number == along else sparse.identity(axis.knots)
                term = sparse.kron(term, own, format="csr")
            block = block + term
        blocks.append(block)
    return sparse.csr_matrix(sparse.block_diag(blocks))


def _differences(knots: int, order: int) -> sparse.csr_matrix:
    steps = np.diff(np.eye(knots), n=order, axis=0) if knots > order else np.zeros((0, knots))
    return sparse.csr_matrix(steps.T @ steps)


def _residual_grid(grids: Grids, values: Floats) -> ResidualGrid:
    parts = np.split(np.rint(values / UNIT) * UNIT, np.cumsum([_size(grid) for grid in grids])[:-1])
    return ResidualGrid(
        tuple(Grid(grid, part.reshape([axis.knots for axis in grid])) for grid, part in zip(grids, parts, strict=True))
    )
