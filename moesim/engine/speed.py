"""Speed: how classes of work that run at the same time on one rank slow each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

MAX_CLASSES = 16  # the table has 2 ** classes columns


@dataclass(frozen=True)
class Speed:
    """factor[(class, others)]: the rate at which `class` advances while the set `others` runs beside it on its rank.

    `others` is a sorted tuple of class names (those of the other streams; the class itself again, where two streams run
    it). A set that is not listed takes the largest listed subset, the slowest of equals; 1 where there is none. Only
    compute classes are slowed; a coflow counts in `others` while it holds its stream, its own rate is the network's.
    """

    factor: Mapping[tuple[str, tuple[str, ...]], float]

    def __post_init__(self) -> None:
        for (name, others), factor in self.factor.items():
            if not (math.isfinite(factor) and factor > 0):
                raise BadInput(f"speed of {name!r} beside {', '.join(others)} is {factor}; it must be above 0")

    @property
    def trivial(self) -> bool:
        """Whether every factor is 1."""
        return all(factor == 1.0 for factor in self.factor.values())

    def table(self, classes: tuple[str, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """C classes -> (bit int64[C] of each class, 0 where it slows nobody; factor float64[C, 2 ** bits]).

        Raises BadInput on more than 16 classes that slow others. Names that are not in `classes` never run, so they
        bind nothing.
        """
        slowing = sorted({other for _, others in self.factor for other in others})
        if len(slowing) > MAX_CLASSES:
            raise BadInput(f"{len(slowing)} classes slow others; at most {MAX_CLASSES} can")
        bit_of = {name: 1 << index for index, name in enumerate(slowing)}
        rows = [self._row(name, bit_of) for name in classes]
        return np.array([bit_of.get(name, 0) for name in classes], dtype=np.int64), np.array(rows).reshape(
            len(classes), 1 << len(slowing)
        )

    def _row(self, name: str, bit_of: Mapping[str, int]) -> npt.NDArray[np.float64]:
        """float64[2 ** bits] for one class: larger sets are written last, slower ones of a size after faster ones."""
        listed = [(others, factor) for (slowed, others), factor in self.factor.items() if slowed == name]
        row, masks = np.ones(1 << len(bit_of)), np.arange(1 << len(bit_of))
        for others, factor in sorted(listed, key=lambda entry: (len(set(entry[0])), -entry[1])):
            mask = sum(bit_of[other] for other in sorted(set(others)))
            row[(masks & mask) == mask] = factor
        return row

    def check(self, coflow_classes: tuple[str, ...]) -> None:
        """Raises BadInput where the class of a coflow is to be slowed."""
        for name, _ in self.factor:
            if name in coflow_classes:
                raise BadInput(
                    f"speed cannot slow {name!r}: the network sets the rate of transfers",
                    way_out="lower the kernel's efficiency in the profile",
                )
