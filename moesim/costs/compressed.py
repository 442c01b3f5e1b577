"""What attention to a window and to compressed blocks demands (DeepSeek-V4): CSA, whose blocks an indexer picks from,
and HCA, whose blocks are all looked at. Tables time a layer's whole module, as those of sparse attention do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.costs.shapes import BF16, WEIGHT_BYTES, Demand, Floats, logs
from moesim.models import INDEX_BYTES, Compressed

HCA: Final = 128  # tokens of a block that is measured without an indexer


def role_of(shape: Compressed, phase: str) -> str:
    """Of the module. Layers that look at their window alone have no table: they are HCA's that see no block."""
    return f"{'csa' if shape.index_heads else 'hca'}_{phase}"


def core(
    query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Compressed, cache_dtype: str
) -> Demand:  # fmt: skip
    """Scores of the indexer over the keys of all blocks, and attention to the window and the blocks that are seen, the
    key of each of which is read once.
    """
    columns = (np.asarray(column, dtype=np.float64) for column in (query, context, requests))
    q, c, number = np.broadcast_arrays(*columns)
    tokens, heads, width = q * number, shape.num_heads, shape.head_dim
    pairs = _pairs(c + q, shape.window) - _pairs(c, shape.window) + _of_blocks(q, c, shape)
    index = shape.index_heads * shape.index_dim
    ends = _blocks(c + q, shape)
    scored = q * (ends + _blocks(c, shape)) / 2
    flops = 2.0 * number * (2 * pairs * heads * width + scored * index)
    seen = np.minimum(ends, q * shape.selected) if shape.selected else ends
    keys = (np.minimum(c + q, q + shape.window - 1) + seen) * width * WEIGHT_BYTES[cache_dtype]
    values = 2 * tokens * heads * width * BF16
    indexed = ends * shape.index_dim * INDEX_BYTES * bool(shape.index_heads)
    moved = np.where(tokens > 0, number * (keys + indexed) + values, 0.0)
    where = (tokens, c + q, heads + 0 * tokens, number, 1 + 0 * tokens, moved)
    return Demand(flops, moved, flops, (np.where(tokens > 0, tokens, 0.0),), logs(*where))


def windowed(
    context: npt.ArrayLike, shape: Compressed, like: int
) -> tuple[npt.NDArray[np.int64], Compressed]:  # fmt: skip
    """A layer that sees its window alone, as one with blocks of `like` tokens and no context before its window."""
    return np.minimum(np.asarray(context, dtype=np.int64), shape.window), replace(shape, ratio=like)


def _pairs(tokens: Floats, most: float) -> Floats:
    """Pairs of the first so many tokens, each with itself and those before it, `most` at most."""
    few = np.minimum(tokens, most)
    return np.asarray(few * (few + 1) / 2 + (tokens - few) * most)


def _blocks(tokens: Floats, shape: Compressed) -> Floats:
    """That are whole behind so many tokens, on average."""
    return tokens / shape.ratio if shape.ratio else 0.0 * tokens


def _of_blocks(query: Floats, context: Floats, shape: Compressed) -> Floats:
    """Pairs of tokens and blocks, those that are picked at most."""
    if not shape.ratio:
        return 0.0 * (query + context)
    most = shape.selected or np.inf
    ends = [_area(_blocks(tokens, shape), most) for tokens in (context + query, context)]
    return np.asarray((ends[0] - ends[1]) * shape.ratio)


def _area(blocks: Floats, most: float) -> Floats:
    """Blocks up to `most` that are seen, added up along a sequence of so many."""
    few = np.minimum(blocks, most)
    return np.asarray(few**2 / 2 + (np.where(blocks > few, blocks - few, 0.0) * (most if np.isfinite(most) else 0.0)))
