"""Flow: how many tokens move from each expert of a layer to each expert of the next (ExFlow, arXiv 2401.08383;
MoETuner, arXiv 2502.06643).

A token leaves each of its experts in one layer for each of its experts in the next: k x k moves. With top-1 that is
ExFlow's count; for top-k it is the sum over all pairs of choices, so that a placement is judged by pairs and not by
which choice came first, which recorders do not keep.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 16_384  # tokens looked at together; a count per chunk is exact in float32


def count_flow(tokens: npt.NDArray[np.unsignedinteger[Any]], experts: int) -> npt.NDArray[np.float64]:
    """tokens uint[layers, T, k] (ids of `experts` or more: none) -> float64[layers - 1, experts, experts] moves."""
    layers, length = tokens.shape[:2]
    flow = np.zeros((max(layers - 1, 0), experts, experts))
    for start in range(0, length, CHUNK):
        before = chosen(tokens[0, start : start + CHUNK], experts)
        for layer in range(layers - 1):
            after = chosen(tokens[layer + 1, start : start + CHUNK], experts)
            flow[layer] += before.T @ after
            before = after
    return flow


def chosen(tokens: npt.NDArray[np.unsignedinteger[Any]], experts: int) -> npt.NDArray[np.float32]:
    """tokens [T, k] of one layer -> float32[T, experts]: 1 where the token takes the expert."""
    table = np.zeros((len(tokens), experts + 1), dtype=np.float32)
    table[np.arange(len(tokens))[:, None], np.minimum(tokens.astype(np.int64), experts)] = 1
    return table[:, :experts]
