"""Who serves a request: `choose(loads, ask, rng)`. A rule is one file here and one line in REGISTRY."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from moesim.errors import BrokenInvariant
from moesim.serving.balancer import least_outstanding, power_of_two, prefix_affinity, round_robin, session_affinity
from moesim.serving.balancer.ask import Ask, ask_of

REGISTRY: Final[Mapping[str, Callable[[Sequence[int], Ask, np.random.Generator], int]]] = {
    "round_robin": round_robin.choose,
    "least_outstanding": least_outstanding.choose,
    "power_of_two": power_of_two.choose,
    "prefix_affinity": prefix_affinity.choose,
    "session_affinity": session_affinity.choose,
}


def choose(rule: str, loads: Sequence[int], ask: Ask, rng: np.random.Generator) -> int:
    """The replica that a rule picks by its loads. Raises BrokenInvariant where there is no such replica."""
    chosen = REGISTRY[rule](loads, ask, rng)
    if not 0 <= chosen < len(loads):
        raise BrokenInvariant(f"balancer {rule} picks replica {chosen} of {len(loads)}")
    return chosen


__all__ = ["REGISTRY", "Ask", "ask_of", "choose"]
