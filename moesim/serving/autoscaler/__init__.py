"""How many replicas there should be: `wanted(look, target)`. A rule is one file here and one line in REGISTRY."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from moesim.serving.autoscaler import queue, utilisation
from moesim.serving.autoscaler.look import Look

REGISTRY: Final[Mapping[str, Callable[[Look, float], float]]] = {
    "queue": queue.wanted,
    "utilisation": utilisation.wanted,
}

__all__ = ["REGISTRY", "Look"]
