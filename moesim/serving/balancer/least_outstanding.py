"""The replica with the fewest unanswered requests; among equals one is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.serving.balancer.ask import Ask


def choose(loads: Sequence[int], ask: Ask, rng: np.random.Generator) -> int:
    """The replica of a request."""
    least = min(loads)
    best = [replica for replica, load in enumerate(loads) if load == least]
    return best[int(rng.integers(len(best)))] if len(best) > 1 else best[0]
