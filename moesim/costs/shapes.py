"""FLOPs and bytes of each operator's shape: what physics has to do, before any efficiency. Pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.models import DTYPE_BYTES, Attention

Floats = npt.NDArray[np.float64]
BF16 = 2.0
PADDED_ROWS = 64  # grouped GEMM kernels compute whole tiles of rows per expert


class Demand(NamedTuple):
    """flops and bytes float64[...] of a batch of shapes."""

    flops: Floats
    bytes: Floats


def gemm(m: npt.ArrayLike, n: int, k: int, dtype: str) -> Demand:
    """Activations come and go in bf16 (fp8 kernels read quantised ones), weights in `dtype`."""
    rows = np.asarray(m, dtype=np.float64)
    inputs = min(DTYPE_BYTES[dtype], BF16) if dtype != "fp4" else BF16
    moved = rows * (k * inputs + n * BF16) + n * k * DTYPE_BYTES[dtype]
    return Demand(2.0 * rows * n * k, np.where(rows > 0, moved, 0.0))


def experts(rows: npt.ArrayLike, hidden: int, inter: int, dtype: str, matrices: int) -> Demand:
    """int[..., G] rows of each expert -> [...]: only active experts' weights are read, rows are padded to tiles."""
    counts = np.asarray(rows, dtype=np.float64)
    padded = np.ceil(counts / PADDED_ROWS) * PADDED_ROWS
    weights = float(matrices * hidden * inter)
    active = np.count_nonzero(counts, axis=-1)
    moved = active * weights * DTYPE_BYTES[dtype] + counts.sum(axis=-1) * BF16 * (2 * hidden + matrices * inter)
    return Demand(2.0 * weights * padded.sum(axis=-1), moved)


def attention(
    phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, heads: int,
    dtype: str,
) -> Demand:  # fmt: skip
    """Scores and values; a causal block of q queries after c cached tokens sees q (c + q / 2) pairs.

    MLA decodes in the latent space (each head reads the 512 + 64 cached values), and expands keys in prefill.
    """
    q, c, number = (np.asarray(value, dtype=np.float64) for value in (query, context, requests))
    latent = phase == "decode" and shape.kind == "mla"
    widths = 2 * shape.kv_lora_rank + shape.qk_rope_head_dim if latent else shape.query_head_dim + shape.v_head_dim
    pairs = number * q * (c + (q + 1) / 2)
    cached = shape.cached_values_per_token * max(heads / shape.num_heads, 1 / shape.num_kv_heads)
    if shape.kind == "mla":
        cached = shape.cached_values_per_token if latent else heads * (shape.query_head_dim + shape.v_head_dim)
    own = number * q * heads * (shape.query_head_dim + shape.v_head_dim) * BF16
    return Demand(2.0 * pairs * heads * widths, own + number * (c + q) * cached * DTYPE_BYTES[dtype])
