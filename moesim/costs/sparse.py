"""What attention demands whose queries look at the tokens that an indexer picks: latent (DeepSeek-V3.2, GLM-5), grouped
(MiniMax-M3, in blocks) or compressed (DeepSeek-V4: compressed.py).

Its tables time a layer's whole module: projections, indexer, picking, core. A price of the core alone is what the
module takes beyond the GEMMs that are priced beside it. Widths are those of one rank; the indexer lies whole on each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim.costs import compressed
from moesim.costs.shapes import BF16, WEIGHT_BYTES, Demand, Floats, logs
from moesim.models import Attention, Compressed


def role_of(shape: Attention, phase: str) -> str:
    """Of the module: with an indexer of its own, or of a layer that reuses an earlier one's picks."""
    if isinstance(shape, Compressed):
        return compressed.role_of(shape, phase)
    if shape.kind != "mla":
        return f"msa_{phase}"
    return f"{'dsa' if shape.index_heads else 'dsa_reuse'}_{phase}"


def of_rank(shape: Attention, ways: int) -> Attention:
    """The heads of one of `ways` ranks."""
    return shape.with_heads(shape.num_heads // ways)


def module(
    query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, hidden: int, dtype: str,
    cache_dtype: str,
) -> Demand:  # fmt: skip
    """All of a layer's attention on a rank with the heads of `shape`; weights in `dtype`."""
    inner = core(query, context, requests, shape, cache_dtype)
    tokens, *_ = _tokens(query, context, requests)
    weights = sum(gemm.parameters for gemm in shape.gemms(hidden))
    flops = inner.flops + 2.0 * tokens * weights
    moved = np.where(tokens > 0, inner.bytes + weights * WEIGHT_BYTES[dtype] + 2 * tokens * hidden * BF16, 0.0)
    where = (*(2**one for one in inner.coordinates[:-2]), hidden + 0 * moved, moved)
    return Demand(flops, moved, flops, inner.counts, logs(*where))


def core(
    query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, cache_dtype: str
) -> Demand:  # fmt: skip
    """Scores of the indexer over all that came before, and attention to the `selected` best of it, each of which is
    read once.
    """
    if isinstance(shape, Compressed):
        return compressed.core(query, context, requests, shape, cache_dtype)
    tokens, q, c, number = _tokens(query, context, requests)
    heads, cached, (keys, values) = shape.num_heads, shape.cached_values_per_token, _widths(shape)
    every, seen = number * q * (c + (q + 1) / 2), number * (_seen(c + q, shape.selected) - _seen(c, shape.selected))
    flops = 2.0 * (every * shape.index_heads * shape.index_dim + seen * heads * (keys + values))
    read = np.minimum(c + q, q * shape.selected)  # picks of neighbours may be the same
    index, own = (c + q) * shape.index_bytes_per_token, tokens * heads * (keys + values) * BF16
    moved = np.where(tokens > 0, number * (index + read * cached * WEIGHT_BYTES[cache_dtype]) + own, 0.0)
    counts = (np.where(tokens > 0, tokens, 0.0),)
    where = (tokens, c + q, heads + 0 * tokens, number + 0 * tokens, 1 + 0 * tokens, moved)
    return Demand(flops, moved, flops, counts, logs(*where))


def _widths(shape: Attention) -> tuple[int, int]:
    """Of a head's keys and values: latent attention takes both out of what is cached."""
    if shape.kind != "mla":
        return shape.head_dim, shape.v_head_dim
    return shape.kv_lora_rank + shape.qk_rope_head_dim, shape.kv_lora_rank


def at_rates(core: Demand, scores: Demand, fp8: float, bf16: float) -> Demand:
    """A core whose FLOPs take at the bf16 rate what they take in truth: scores, of fp8 keys, go at the fp8 rate."""
    return core._replace(flops=core.flops - scores.flops * (1 - bf16 / fp8))


def scores(
    query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, cache_dtype: str
) -> Demand:  # fmt: skip
    """The part of `core` that picks."""
    return core(query, context, requests, replace(shape, num_heads=0), cache_dtype)


def _seen(tokens: Floats, selected: int) -> Floats:
    """float64[...]: pairs of the first so many tokens, each with itself and those before it, `selected` at most."""
    few = np.minimum(tokens, selected)
    return np.asarray(few * (few + 1) / 2 + (tokens - few) * selected)


def _tokens(*columns: npt.ArrayLike) -> tuple[Floats, Floats, Floats, Floats]:
    q, c, number = np.broadcast_arrays(*(np.asarray(column, dtype=np.float64) for column in columns))
    return q * number, q, c, number
