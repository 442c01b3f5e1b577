"""One after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.serving.balancer.ask import Ask


def choose(loads: Sequence[int], ask: Ask, rng: np.random.Generator) -> int:
    """The replica of a request."""
    return ask.number % len(loads)
