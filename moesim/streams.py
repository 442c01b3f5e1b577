"""Named random streams and keyed hashes: adding a consumer moves no other draw, and no draw depends on order.

A stream is named by the words of its purpose, e.g. `stream(seed, "transplant", layer)`. Python's own `hash()` is never
used: it changes with PYTHONHASHSEED.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """The random generator of one purpose under one seed; equal names give equal draws, everywhere."""
    digest = hashlib.sha256("\0".join(map(str, name)).encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def key(*name: str | int) -> int:
    """A 64-bit key for `hash_ints` made from words; the same on every machine."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, name)).encode()).digest()[:8], "little")


def hash_ints(salt: int, *columns: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Columns of integers, broadcast together -> uint64 hash of each row (splitmix64 finaliser, chained).

    Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """
    state = np.asarray(salt & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            state = _mix(state + _GOLDEN + np.asarray(column).astype(np.uint64))
    return state


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
