"""Clients that wait for an answer before they send the next request."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.serving.arrivals.times import Floats
from moesim.yamlfile import Section


class ClosedLoop(Section):
    """vLLM's --max-concurrency with an unlimited rate: all clients begin at once."""

    concurrency: int = Field(ge=1, le=10**6, description="clients; each has one request under way")

    def seconds(self, n: int, rng: np.random.Generator) -> Floats:
        """float64[n]: none has to wait for a time."""
        return np.zeros(n)
