"""Work: the seconds of one task on each rank, kept apart by error family so that an error can be drawn per family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from moesim.costs import Estimate

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """family -> seconds float64[ranks]. Work adds up; a factor scales all of it."""

    seconds: Mapping[str, Floats] = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        merged = dict(self.seconds)
        for family, seconds in other.seconds.items():
            merged[family] = merged[family] + seconds if family in merged else seconds
        return Work(merged)

    def times(self, factor: float) -> Work:
        """The same work, `factor` times as long."""
        return Work({family: seconds * factor for family, seconds in self.seconds.items()})

    @property
    def total(self) -> Floats | float:
        """float64[ranks]: all families together."""
        return sum(self.seconds.values(), start=0.0)


@dataclass
class CostLog:
    """What the answers of a CostModel rested on: how many were asked, and how many lay outside what was measured;
    kernels: role -> the measured kernel that played it.
    """

    basis: dict[str, str] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)

    def work(self, estimates: Iterable[Estimate]) -> Work:
        """Estimates of float64[ranks] -> their Work; what they rest on is noted."""
        total = Work()
        for estimate in estimates:
            self.note(estimate)
            total = total + Work({estimate.family: np.asarray(estimate.seconds, dtype=np.float64)})
        return total

    def note(self, estimate: Estimate) -> None:
        """Count one answer."""
        family = estimate.family
        self.basis[family] = estimate.basis
        if estimate.role:
            self.kernels[estimate.role] = estimate.kernel
        self.asked[family] = self.asked.get(family, 0) + int(np.size(estimate.seconds))
        self.outside[family] = self.outside.get(family, 0) + int(np.count_nonzero(estimate.outside))
