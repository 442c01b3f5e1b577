"""Who leaves a full cache: the resident expert of a layer with the least worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.routing.offload.passes import Bools

Floats = npt.NDArray[np.float32]
Worth = Callable[[Bools], Floats]  # used bool[P, E] of a layer -> float32[P, E]: of keeping each, before each pass
HALF_LIFE: Final = 8  # passes after which a use counts half for `priority`
NEVER: Final = np.float32(-(2**30))


def _shifted(seen: npt.NDArray[np.float64]) -> Floats:
    """What is known after each pass -> before it."""
    found = np.zeros(seen.shape, dtype=np.float32)
    found[1:] = seen[:-1]
    return found


def _lru(used: Bools) -> Floats:
    """The pass of the last use."""
    number = np.arange(1, len(used) + 1, dtype=np.float64)[:, None]
    return _shifted(np.maximum.accumulate(np.where(used, number, 0.0)))


def _lfu(used: Bools) -> Floats:
    """How often it was used."""
    return _shifted(np.cumsum(used, axis=0, dtype=np.float64))


def _priority(used: Bools) -> Floats:
    """How often it was used lately."""
    kept, found = np.zeros(used.shape[1]), np.zeros(used.shape)
    for at, row in enumerate(used):
        kept = kept * 0.5 ** (1 / HALF_LIFE) + row
        found[at] = kept
    return _shifted(found)


def _belady(used: Bools) -> Floats:
    """Minus the pass of the next use: nobody can know it, and no eviction on demand does better."""
    number = np.arange(len(used), dtype=np.float32)[:, None]
    following = np.where(used, -number, NEVER)[::-1]
    return np.asarray(np.maximum.accumulate(following)[::-1], dtype=np.float32)


EVICTION: Final[dict[str, Worth]] = {"lru": _lru, "lfu": _lfu, "priority": _priority, "belady": _belady}
