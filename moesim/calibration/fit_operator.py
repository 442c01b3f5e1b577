"""Fit of one kernel: a robust analytic form, times a residual grid whose fineness a penalised likelihood chooses.

Form: least squares with a soft absolute loss on ln(predicted / measured). Grid: penalised least squares, reweighted
against outliers (Huber); first and second differences between knots are penalised, so knots without data continue
their neighbours. Of a coarse and a fine grid, that with the smaller BIC (n ln s^2 + effective pieces x ln n) is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize, sparse

from moesim.costs.form import Form
from moesim.costs.grid import CLIP, UNIT, Axis, ResidualGrid
from moesim.costs.shapes import TILES, Demand, Kind

Floats = npt.NDArray[np.float64]
FORM_ROWS: Final = 1500  # that a form is fitted on, and a grid: drawn from all, the same every time
GRID_ROWS: Final = 8000
HUBER: Final = 0.1
REWEIGHTED: Final = 2
PROBES: Final = 8  # random signs that estimate a trace (Hutchinson 1990)
RIDGE: Final = 0.3
FINENESS: Final = (2.0, 1.0)  # steps of a Kind times these


@dataclass(frozen=True)
class Peaks:
    """FLOP/s and B/s that no kernel beats, and the cache whose content may be read faster."""

    flops: float
    bandwidth: float
    cache: float = 0.0

    def bound(self, demand: Demand) -> Floats:
        """float64[...] seconds that physics asks for at least."""
        memory = np.where(demand.bytes > self.cache, demand.bytes / self.bandwidth, 0.0)
        least: Floats = np.maximum(demand.flops / self.flops, memory)
        return least


@dataclass(frozen=True)
class Fitted:
    """A form, its grid, the tile it pads to, and the least and largest of each coordinate it was fitted on."""

    form: Form
    grid: ResidualGrid
    tile: int
    hull: tuple[tuple[float, float], ...]

    def seconds(self, demand: Demand) -> Floats:
        """float64[...]."""
        return self.form.seconds(demand) * self.grid.at(demand.coordinates)


def sample(rows: int, most: int) -> npt.NDArray[np.int64]:
    """Some row numbers, the same for the same counts."""
    return np.sort(np.random.default_rng(rows).permutation(rows)[:most]).astype(np.int64)


def take(demand: Demand, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Demand:
    """Some of the rows."""
    lists = [tuple(column[index] for column in columns) for columns in (demand.counts, demand.coordinates)]
    return Demand(demand.flops[index], demand.bytes[index], demand.padded[index], lists[0], lists[1])


def fit(kind: Kind, demands: dict[int, Demand], seconds: Floats, peaks: Peaks) -> Fitted:
    """demands: one per tile that may be padded to; seconds float64[rows]."""
    some = sample(len(seconds), FORM_ROWS)
    tries = {tile: fit_form(take(demand, some), seconds[some], peaks) for tile, demand in demands.items()}
    tile = min(tries, key=lambda tile: tries[tile][1])
    demand, form = demands[tile], tries[tile][0]
    some = sample(len(seconds), GRID_ROWS)
    left = np.clip(np.log(seconds[some] / form.seconds(take(demand, some))), -CLIP, CLIP)
    grid = fit_grid(kind, take(demand, some).coordinates, left)
    hull = tuple((float(values.min()), float(values.max())) for values in demand.coordinates)
    return Fitted(form, grid, tile, hull)


def tiles_of(kind: str) -> tuple[int, ...]:
    """The tiles among which a fit chooses."""
    return TILES if kind in ("gemm", "experts") else TILES[:1]


def fit_form(demand: Demand, seconds: Floats, peaks: Peaks) -> tuple[Form, float]:
    """The form and its robust cost per row."""
    scale = [float(np.median(seconds) / max(np.median(count), 1e-12)) for count in demand.counts]
    each = [1e-2 * s for s in scale]
    start = np.log([0.8 * seconds.min(), 0.6 * peaks.flops, 0.7 * peaks.bandwidth, 1.5, *each])
    low = np.log([1e-8, 1e-3 * peaks.flops, 1e-3 * peaks.bandwidth, 0.5, *(1e-6 * s for s in scale)])
    high = np.log([1e-2, peaks.flops, peaks.bandwidth, 20.0, *(10 * s for s in scale)])

    def form(p: Floats) -> Form:
        launch, flops, nbytes, norm, *rest = (float(value) for value in np.exp(p))
        return Form(launch, flops, nbytes, norm, tuple(rest))

    def off(p: Floats) -> Floats:
        return np.asarray(np.log(form(p).seconds(demand) / seconds))

    found = optimize.least_squares(
        off, np.clip(start, low + 1e-6, high - 1e-6), bounds=(low, high),
        loss="soft_l1", f_scale=HUBER, max_nfev=40, x_scale=1.0,
    )  # fmt: skip
    return form(found.x), float(found.cost) / len(seconds)


def fit_grid(kind: Kind, coordinates: tuple[Floats, ...], left: Floats) -> ResidualGrid:
    """ln(measured / form) float64[rows] -> the grid with the smallest BIC."""
    tries = [_fit_grid(kind, coordinates, left, fineness) for fineness in FINENESS]
    return min(tries, key=lambda found: found[1])[0]


def _fit_grid(
    kind: Kind, coordinates: tuple[Floats, ...], left: Floats, fineness: float
) -> tuple[ResidualGrid, float]:  # fmt: skip
    axes = tuple(_axis(values, step * fineness) for values, step in zip(coordinates, kind.steps, strict=True))
    design, rough = _design(axes, kind.pairs, coordinates), _roughness(axes, kind.pairs, kind.stiffness)
    weight = np.ones(len(left))
    for _ in range(REWEIGHTED):
        weighted = sparse.csr_matrix(design.multiply(weight[:, None]))
        normal = (design.T @ weighted).toarray()
        factor = linalg.cho_factor(normal + rough, check_finite=False)
        values = linalg.cho_solve(factor, design.T @ (weight * left), check_finite=False)
        error = left - design @ values
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(error), 1e-9))
    pieces = _trace_of_hat(factor, normal)
    spread = float(np.sum(weight * error**2) / len(left))
    bic = len(left) * np.log(max(spread, 1e-12)) + pieces * np.log(len(left))
    return _grid(axes, kind.pairs, values), float(bic)


def _trace_of_hat(factor: tuple[Floats, bool], normal: Floats) -> float:
    """Effective pieces of a penalised fit: the trace of (normal + penalty)^-1 normal, estimated."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(normal), PROBES))
    return float(np.sum(signs * linalg.cho_solve(factor, normal @ signs, check_finite=False)) / PROBES)


def _axis(values: Floats, step: float) -> Axis:
    low, high = np.floor(values.min() / step + 1e-9), np.ceil(values.max() / step - 1e-9)
    return Axis(float(low * step), step, int(max(high - low, 0)) + 1)


def _design(
    axes: tuple[Axis, ...], pairs: tuple[tuple[int, int], ...], coordinates: tuple[Floats, ...]
) -> sparse.csr_matrix:
    """float64[rows, knots of all pairs]: each row holds four weights per pair."""
    located = [axis.locate(values) for axis, values in zip(axes, coordinates, strict=True)]
    rows = np.arange(len(coordinates[0]))
    parts, offset = [], 0
    for a, b in pairs:
        (low_a, part_a), (low_b, part_b) = located[a], located[b]
        for up_a in (0, 1):
            for up_b in (0, 1):
                weight = (part_a if up_a else 1 - part_a) * (part_b if up_b else 1 - part_b)
                knot_a = np.minimum(low_a + up_a, axes[a].knots - 1)
                knot_b = np.minimum(low_b + up_b, axes[b].knots - 1)
                parts.append((weight, rows, offset + knot_a * axes[b].knots + knot_b))
        offset += axes[a].knots * axes[b].knots
    weights, row, column = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sparse.csr_matrix((weights, (row, column)), shape=(len(rows), offset))


def _roughness(axes: tuple[Axis, ...], pairs: tuple[tuple[int, int], ...], stiffness: float) -> Floats:
    """float64[knots, knots]: first and second differences along both axes of each pair, and a ridge."""
    blocks = []
    for a, b in pairs:
        sizes = (axes[a].knots, axes[b].knots)
        block = RIDGE * np.eye(sizes[0] * sizes[1])
        for order in (1, 2):
            block += stiffness * np.kron(_differences(sizes[0], order), np.eye(sizes[1]))
            block += stiffness * np.kron(np.eye(sizes[0]), _differences(sizes[1], order))
        blocks.append(block)
    return np.asarray(linalg.block_diag(*blocks))


def _differences(knots: int, order: int) -> Floats:
    if knots <= order:
        return np.zeros((knots, knots))
    steps = np.diff(np.eye(knots), n=order, axis=0)
    return np.asarray(steps.T @ steps)


def _grid(axes: tuple[Axis, ...], pairs: tuple[tuple[int, int], ...], values: Floats) -> ResidualGrid:
    sizes = [axes[a].knots * axes[b].knots for a, b in pairs]
    parts = np.split(np.rint(values / UNIT) * UNIT, np.cumsum(sizes)[:-1])
    shaped = tuple(part.reshape(axes[a].knots, axes[b].knots) for part, (a, b) in zip(parts, pairs, strict=True))
    return ResidualGrid(axes, pairs, shaped)
