"""All requests of a session go to one replica, whose cache holds what was said before: a hash of the session.

Source: vLLM's production stack, routing logic "session".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim import streams
from moesim.serving.balancer import least_outstanding
from moesim.serving.balancer.ask import Ask

SALT = streams.key("balancer", "session_affinity")


def choose(loads: Sequence[int], ask: Ask, rng: np.random.Generator) -> int:
    """The replica of a request; of one without a session, the least loaded."""
    if ask.session < 0:
        return least_outstanding.choose(loads, ask, rng)
    return int(streams.hash_ints(SALT, ask.session)) % len(loads)
