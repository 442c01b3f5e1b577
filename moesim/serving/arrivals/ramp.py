"""A Poisson process whose rate moves evenly from one to another, and stays there."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.serving.arrivals.times import Floats, PositiveRate
from moesim.units import Seconds
from moesim.yamlfile import Section


class Ramp(Section):
    """vLLM's linear --ramp-up-strategy."""

    first: PositiveRate = Field(description="rate at the beginning")
    last: PositiveRate = Field(description="rate after `over`")
    over: Seconds = Field(gt=0, le=1e6, description="until the last rate is reached")

    def seconds(self, n: int, rng: np.random.Generator) -> Floats:
        """float64[n], ascending: the times at which the expected number reaches those of a Poisson process of rate 1.

        Over the ramp N(t) = first t + slope t^2 / 2 is solved for t without subtracting near-equal numbers.
        """
        due = np.cumsum(rng.exponential(1.0, n))
        slope = (self.last - self.first) / self.over
        ramped = (self.first + self.last) / 2 * self.over
        inside = np.minimum(due, ramped)
        root = np.sqrt(np.maximum(self.first**2 + 2 * slope * inside, 0.0))
        return 2 * inside / (self.first + root) + (due - inside) / self.last
