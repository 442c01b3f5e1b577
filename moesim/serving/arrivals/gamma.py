"""Gaps drawn from a gamma distribution: burstier than Poisson below shape 1, smoother above."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.serving.arrivals.times import Floats, PositiveRate
from moesim.yamlfile import Section


class Gamma(Section):
    """vLLM's --request-rate with --burstiness, which is the shape: the gaps' coefficient of variation is its root's
    inverse.
    """

    rate: PositiveRate = Field(description="requests a second, on average")
    burstiness: float = Field(gt=0, le=1e6, description="shape; 1 is Poisson, below it arrivals come in bursts")

    def seconds(self, n: int, rng: np.random.Generator) -> Floats:
        """float64[n], ascending."""
        return np.cumsum(rng.gamma(self.burstiness, 1 / (self.rate * self.burstiness), n))
