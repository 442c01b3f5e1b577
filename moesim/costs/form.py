"""The analytic form of one operator.

t = launch + ((padded / F)^p + (bytes / B)^p)^(1/p) + sum of count x seconds each: compute and memory joined by a p-norm
that overlaps them as far as the measurements say, and what costs time by the piece (routed choices, active experts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moesim.costs.shapes import Demand

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """launch s; flops_per_second F; bytes_per_second B; norm p; each: seconds of each of the Demand's counts."""

    launch: float
    flops_per_second: float
    bytes_per_second: float
    norm: float
    each: tuple[float, ...] = ()

    def at_clock(self, share: float) -> Form:
        """Where the clock of arithmetic is that share of the measured one."""
        return self if share == 1.0 else replace(self, flops_per_second=share * self.flops_per_second)

    def seconds(self, demand: Demand) -> Floats:
        """float64[...] seconds; nothing to do takes no time."""
        compute, memory = demand.padded / self.flops_per_second, demand.bytes / self.bytes_per_second
        larger = np.maximum(np.maximum(compute, memory), 1e-15)
        ratio = np.minimum(compute, memory) / larger
        total = self.launch + larger * (1 + ratio**self.norm) ** (1 / self.norm)
        for count, seconds in zip(demand.counts, self.each, strict=True):
            total = total + count * seconds
        found: Floats = np.where(demand.bytes > 0, total, 0.0)
        return found
