"""Whole modules of latent attention as engines' tables time them (DeepSeek-V3): projections, norms, rotary embedding,
absorbed projections, writing of the cache, core. What a core takes in an engine is its module less the GEMMs that are
priced beside it.

All that a module adds goes with tokens and heads, not with the width of the model: it is asked for at the widths that
were measured, and so are the GEMMs that are taken off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.costs import shapes
from moesim.costs.shapes import BF16, WEIGHT_BYTES, Demand
from moesim.models import Attention, Gemm

HIDDEN: Final = 7168
LATENT: Final = 1536  # of the queries
MEASURED: Final = Attention("mla", 128, 128, 192, 128, LATENT, 512, 128, 64)


def role_of(phase: str, dtype: str) -> str:
    """Of an engine's module, over a cache in `dtype`."""
    return f"latent_{phase}.{dtype}"


def as_measured(shape: Attention, heads: int) -> Attention:
    """`heads` of the shape's, between projections as wide as those that were measured."""
    return replace(shape, num_heads=heads, num_kv_heads=heads, q_lora_rank=LATENT, gated=False)


def gemms(shape: Attention) -> tuple[Gemm, ...]:
    """Projections of the measured width."""
    return shape.gemms(HIDDEN)


def up(shape: Attention, heads: int) -> Gemm:
    """Keys and values of `heads` heads out of the latent: what is absorbed in decode."""
    return next(one for one in gemms(as_measured(shape, heads)) if one.name == "kv_up")


def absorbed(tokens: npt.ArrayLike, heads: npt.ArrayLike, shape: Attention) -> Demand:
    """Its two halves as a product for each head, in bf16: queries into the latent space, what was attended to out."""
    t, h = (np.asarray(column, dtype=np.float64) for column in (tokens, heads))
    widths = shape.qk_nope_head_dim + shape.v_head_dim
    flops = 2.0 * t * h * shape.kv_lora_rank * widths
    activations = t * h * (widths + 2 * shape.kv_lora_rank)
    moved = np.where(t > 0, (activations + h * shape.kv_lora_rank * widths) * BF16, 0.0)
    return Demand(flops, moved, flops, (), shapes.logs(t + 0 * moved, h + 0 * moved, moved))


def module(
    phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, dtype: str,
    cache_dtype: str,
) -> Demand:  # fmt: skip
    """All of a layer's attention with the heads of `shape`; weights in `dtype`."""
    columns = (np.asarray(column, dtype=np.float64) for column in (query, context, requests))
    q, c, number = np.broadcast_arrays(*columns)
    core = shapes.attention_of(shape, phase, q, c, number, shape.num_heads, cache_dtype)
    tokens, weights = q * number, sum(gemm.parameters for gemm in gemms(shape))
    flops = core.flops + 2.0 * tokens * weights
    moved = np.where(tokens > 0, core.bytes + weights * WEIGHT_BYTES[dtype] + 2 * tokens * HIDDEN * BF16, 0.0)
    where = shapes.logs(tokens, c + q, shape.num_heads + 0 * tokens, number, HIDDEN + 0 * tokens, moved)
    return Demand(flops, moved, flops, (np.where(tokens > 0, tokens, 0.0),), where)
