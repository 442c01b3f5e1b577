"""Two replicas are drawn; the one with fewer unanswered requests gets it.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.serving.balancer.ask import Ask


def choose(loads: Sequence[int], ask: Ask, rng: np.random.Generator) -> int:
    """The replica of a request."""
    if len(loads) == 1:
        return 0
    one, other = (int(replica) for replica in rng.choice(len(loads), 2, replace=False))
    return other if loads[other] < loads[one] else one
