"""Fit of one kernel: a robust analytic form (least squares with a soft absolute loss on ln(predicted / measured)),
times a residual grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import optimize

from moesim.calibration.fit_grid import fit_grid
from moesim.costs.form import Form
from moesim.costs.grid import CLIP, ResidualGrid
from moesim.costs.shapes import Demand, Kind

Floats = npt.NDArray[np.float64]
FORM_ROWS: Final = 1500  # that a form is fitted on, and a grid: drawn from all, the same every time
GRID_ROWS: Final = 50_000
OUTLYING: Final = 0.1  # of the logarithm, from where the loss is absolute


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
    """A form, its grid, the tile it pads to, the least and largest of each coordinate it was fitted on, and how fine
    its grid is.
    """

    form: Form
    grid: ResidualGrid
    tile: int
    hull: tuple[tuple[float, float], ...]
    fineness: float = 1.0

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


def fit(
    kind: Kind, demands: dict[int, Demand], seconds: Floats, peaks: Peaks, like: Fitted | None = None,
    rows: int = GRID_ROWS,
) -> Fitted:  # fmt: skip
    """demands: one per tile that may be padded to; seconds float64[rows]. like: a fit of more of the same kernel, whose
    tile and fineness hold; rows: that the grid is fitted on at most.
    """
    some = sample(len(seconds), FORM_ROWS)
    demands = {like.tile: demands[like.tile]} if like else demands
    tries = {tile: fit_form(take(demand, some), seconds[some], peaks) for tile, demand in demands.items()}
    tile = min(tries, key=lambda tile: tries[tile][1])
    demand, form = demands[tile], tries[tile][0]
    some = sample(len(seconds), rows)
    left = np.clip(np.log(seconds[some] / form.seconds(take(demand, some))), -CLIP, CLIP)
    grid, fineness = fit_grid(kind, take(demand, some).coordinates, left, like.fineness if like else None)
    hull = tuple((float(values.min()), float(values.max())) for values in demand.coordinates)
    return Fitted(form, grid, tile, hull, fineness)


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
        loss="soft_l1", f_scale=OUTLYING, max_nfev=40, x_scale=1.0,
    )  # fmt: skip
    return form(found.x), float(found.cost) / len(seconds)
