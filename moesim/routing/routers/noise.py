"""Random numbers of tokens without a generator: looked up by a hash, so that no order and no batch changes them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from moesim import streams

POOL = 4096  # rows; two of them are added, so that 16 million different ones exist


def normals(key: int, width: int, request: npt.ArrayLike, position: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """request, position [T] -> float32[T, width] standard normal numbers of each token."""
    ticket = streams.hash_ints(key, request, position)
    pool = _pool(width)
    found: npt.NDArray[np.float32] = pool[0].take((ticket % np.uint64(POOL)).astype(np.int64), axis=0)
    found += pool[1].take(((ticket >> np.uint64(32)) % np.uint64(POOL)).astype(np.int64), axis=0)
    return found


def uniforms(key: int, request: npt.ArrayLike, position: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """request, position [T] -> float64[T] in [0, 1)."""
    ticket = streams.hash_ints(key, request, position)
    return (ticket >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=16)
def _pool(width: int) -> npt.NDArray[np.float32]:
    """float32[2, POOL, width]: columns with mean 0 and variance 1/2 exactly, so that no column is favoured."""
    drawn = streams.stream(0, "router", "noise", width).normal(size=(2, POOL, width))
    drawn -= drawn.mean(axis=1, keepdims=True)
    drawn /= drawn.std(axis=1, keepdims=True) * np.sqrt(2)
    return drawn.astype(np.float32)
