"""Prompts that begin alike go to one replica, whose cache holds their beginning, unless it has far more to do.

The replica of a group is found by hashing, a full one passes its requests on to the next: consistent hashing with
bounded loads. Source: Mirrokni, Thorup, Zadimoghaddam, SODA 2018; routers of vLLM and SGLang do the like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moesim import streams
from moesim.serving.balancer import least_outstanding
from moesim.serving.balancer.ask import Ask

BOUND = 1.25  # times the mean load, beyond which a replica is full
SALT = streams.key("balancer", "prefix_affinity")


def choose(loads: Sequence[int], ask: Ask, rng: np.random.Generator) -> int:
    """The replica of a request; of one that shares nothing, the least loaded."""
    if ask.group < 0:
        return least_outstanding.choose(loads, ask, rng)
    full = math.ceil(BOUND * (sum(loads) + 1) / len(loads))
    home = int(streams.hash_ints(SALT, ask.group)) % len(loads)
    order = ((home + step) % len(loads) for step in range(len(loads)))
    return next(replica for replica in order if loads[replica] < full)
