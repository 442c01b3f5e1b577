"""Designs: which values of several axes meet in a point. A function of axes, number and seed; nothing else is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import BadInput
from moesim.studies.sweeping.axes import Axis, Interval

Design = Literal["cartesian", "zipped", "random", "latin"]
DRAWN: Final = ("random", "latin")
MOST: Final = 1_000_000  # points of a sweep: at 10 a second more than a day


def size(axes: Sequence[Axis], design: Design, number: int | None, seeds: int = 1) -> int:
    """Points of a design, before any is made. Raises BadInput for what cannot be one, or is too large."""
    count = _drawn(number, design) if design in DRAWN else _listed(axes, design, number)
    if count * seeds > MOST:
        raise BadInput(
            f"{count * seeds:,} points, {MOST:,} at most", where=" x ".join(axis.key for axis in axes) or "sweep",
            way_out="fewer values, or --design latin --points 1000",
        )  # fmt: skip
    return count


def combine(axes: Sequence[Axis], design: Design, number: int | None, seed: int) -> Iterator[tuple[Any, ...]]:
    """A value of each axis, point by point; `size` has been asked before."""
    if design in DRAWN:
        shares = spread(len(axes), number or 1, seed, latin=design == "latin")
        yield from (tuple(axis.at(float(u)) for axis, u in zip(axes, row, strict=True)) for row in shares)
        return
    lists = [axis.values for axis in axes if not isinstance(axis.values, Interval)]
    longest = max((len(values) for values in lists), default=1)
    rows = itertools.product(*lists) if design == "cartesian" else zip(*(_long(v, longest) for v in lists), strict=True)
    yield from rows if lists else ((),)


def spread(axes: int, number: int, seed: int, *, latin: bool) -> npt.NDArray[np.float64]:
    """float64[number, axes] in 0 .. 1; latin: in each column every stretch of 1 / number has one (McKay, Beckman,
    Conover, Technometrics 1979). A column has a stream of its own: another axis moves none of its values.
    """
    columns = np.empty((number, axes))
    for column in range(axes):
        random = streams.stream(seed, "sweep", column)
        shares = random.random(number)
        columns[:, column] = (random.permutation(number) + shares) / number if latin else shares
    return np.minimum(columns, np.nextafter(1.0, 0.0))


def _drawn(number: int | None, design: str) -> int:
    if number is None:
        raise BadInput(f"a {design} design draws as many points as one says", way_out="--points 100")
    return number


def _listed(axes: Sequence[Axis], design: str, number: int | None) -> int:
    if number is not None:
        raise BadInput(f"a {design} design has as many points as its values make", where="--points",
                       way_out="--design latin")  # fmt: skip
    for axis in axes:
        if isinstance(axis.values, Interval):
            raise BadInput("an interval has no values of its own", where=f"--set {axis.key}",
                           way_out="--design latin --points 100, or a list of values")  # fmt: skip
    lengths = [len(axis.values) for axis in axes if not isinstance(axis.values, Interval)]
    if design == "cartesian":
        return math.prod(lengths)
    if longer := sorted({length for length in lengths if length > 1}):
        if len(longer) > 1:
            counts = ", ".join(f"{axis.key} has {n}" for axis, n in zip(axes, lengths, strict=True))
            raise BadInput(f"zipped axes have equally many values: {counts}", way_out="--design cartesian")
        return longer[0]
    return 1


def _long(values: tuple[Any, ...], longest: int) -> tuple[Any, ...]:
    """One value stands for all."""
    return values * longest if len(values) == 1 else values
