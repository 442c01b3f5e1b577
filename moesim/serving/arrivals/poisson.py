"""Independent arrivals: exponential gaps of one mean."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.serving.arrivals.times import Floats, PositiveRate
from moesim.yamlfile import Section


class Poisson(Section):
    """vLLM's --request-rate."""

    rate: PositiveRate = Field(description="requests a second, on average")

    def seconds(self, n: int, rng: np.random.Generator) -> Floats:
        """float64[n], ascending."""
        return np.cumsum(rng.exponential(1 / self.rate, n))
