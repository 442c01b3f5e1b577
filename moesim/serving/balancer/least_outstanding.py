"""The replica with the fewest unanswered requests; among equals a hash of the request decides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.serving.balancer.ask import Ask
from moesim.serving.requests import Ints

SALT = streams.key("balancer", "least_outstanding")


def tickets(number: npt.ArrayLike) -> Ints:
    """int64[n] requests -> int64[n], 0 or more: which of several equals gets each, modulo how many they are."""
    return (streams.hash_ints(SALT, number) >> np.uint64(1)).astype(np.int64)


def choose(loads: Sequence[int], ask: Ask, rng: np.random.Generator) -> int:
    """The replica of a request."""
    least = min(loads)
    best = [replica for replica, load in enumerate(loads) if load == least]
    return best[int(tickets(ask.number)) % len(best)] if len(best) > 1 else best[0]
