"""Groups of requests that arrive together, one group after the other."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.serving.arrivals.times import Floats
from moesim.units import Seconds
from moesim.yamlfile import Section


class Burst(Section):
    """Everything at once where there is one group: an offline run."""

    size: int = Field(ge=1, le=10**9, description="requests of a group")
    every: Seconds = Field(le=1e6, description="from one group to the next")

    def seconds(self, n: int, rng: np.random.Generator) -> Floats:
        """float64[n], ascending; nothing is drawn."""
        return (np.arange(n) // self.size).astype(np.float64) * self.every
