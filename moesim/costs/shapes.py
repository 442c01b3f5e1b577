"""What each operator's shape demands of a device, before any efficiency, and where it lies. Pure arithmetic.

A Demand goes into a Form (flops, bytes, counts) and into a residual grid (coordinates). A profile asks with the same
functions that it was fitted with.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.models import Attention

Floats = npt.NDArray[np.float64]
BF16: Final = 2.0
WEIGHT_BYTES: Final = {
    "bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "fp4": 0.5 + 1 / 16, "mxfp4": 0.5 + 1 / 32, "nvfp4": 0.5 + 1 / 16,
    "int4_wo": 0.5, "w4a16_mxfp4": 0.5 + 1 / 32, "w4a8_mxfp4_mxfp8": 0.5 + 1 / 32, "int8": 1.0, "int8_wo": 1.0,
    "sq": 1.0, "fp32": 4.0,
}  # fmt: skip
ARITHMETIC: Final = {"fp8_block": "fp8", "mxfp4": "fp4", "nvfp4": "fp4", "int4_wo": "bf16", "int8_wo": "bf16",
                     "w4a16_mxfp4": "bf16", "w4a8_mxfp4_mxfp8": "fp8"}  # fmt: skip
ALIGNED: Final = 16  # rows of a GEMM beyond which no kernel gains from a rounder number
LAST: Final = 128  # rows of the tiles of a dense GEMM; how many lie in the last one is a coordinate
TILES: Final = (16, 64, 128)  # rows that grouped and dense GEMM kernels compute together
SEEN: Final = {128: 128, 192: 192, 256: 128}  # tiles of queries of full attention -> of keys: FA2, FA3, FA4
MLA_EXPANDED: Final = 192 + 128  # key and value of one head in DeepSeek's latent attention
GPUS_OF_DEEPEP: Final = 8
HEAD_DIM: Final = 0.08  # octaves that tell 64, 72 and 80 values apart: kernels pad them, or are others


class Demand(NamedTuple):
    """flops, bytes: what physics has to do; padded: FLOPs of whole tiles; counts: things that cost time each;
    coordinates: log2 of where the shape lies. All float64[...].
    """

    flops: Floats
    bytes: Floats
    padded: Floats
    counts: tuple[Floats, ...]
    coordinates: tuple[Floats, ...]


class Kind(NamedTuple):
    """counts, coordinates: names of a Demand's; grids: coordinates that interact, and the octaves between the knots of
    each; stiffness: how much a grid resists bending, more where few shapes were measured; finenesses: factors on those
    octaves, among which a fit chooses.
    """

    counts: tuple[str, ...]
    coordinates: tuple[str, ...]
    grids: tuple[dict[str, float], ...]
    stiffness: float = 0.2
    finenesses: tuple[float, ...] = (2.0, 1.0)


def _dense(remainder: str) -> Kind:
    """remainder: the coordinate that tells how rows fill tiles."""
    return Kind(
        (),
        ("m", "n", "k", "tiles", remainder, "bytes"),
        (
            {"m": 0.25, "n": 0.5},
            {"m": 0.25, "k": 0.5},
            {"n": 0.5, "k": 0.5},
            {"m": 0.5, "n": 1, "k": 1},
            {"tiles": 0.25, "k": 1},
            {"tiles": 0.25, "m": 0.5},
            {remainder: 1, "m": 0.5},
            {remainder: 1, "n": 1},
            {remainder: 1, "k": 1},
            {"bytes": 0.25, "k": 1},
            {"bytes": 0.25, "n": 1},
        ),
        finenesses=(2.0,),
    )


KINDS: Final[dict[str, Kind]] = {
    "gemm": _dense("last"),
    "gemm_aligned": _dense("alignment"),
    "experts": Kind(
        ("choice_bytes", "choices", "active"),
        ("rows_per_expert", "active", "hidden", "inter", "skew", "away", "bytes"),
        (
            {"rows_per_expert": 1, "skew": 1},
            {"rows_per_expert": 1, "away": 1.5},
            {"rows_per_expert": 1, "active": 1, "hidden": 0.5},
            {"rows_per_expert": 1, "active": 1, "inter": 1},
            {"active": 1, "skew": 1},
            {"bytes": 0.5, "rows_per_expert": 1},
            {"bytes": 0.5, "active": 1},
            {"bytes": 0.5, "hidden": 0.5},
            {"bytes": 0.5, "inter": 1},
        ),
        10.0,
    ),
    "attention": Kind(
        ("units",),
        ("units", "length", "group", "head_dim", "batch", "bytes"),
        (
            {"units": 1, "length": 1, "group": 1},
            {"units": 1, "length": 1, "head_dim": 1},
            {"group": 1, "head_dim": 1},
            {"units": 1, "batch": 1},
            {"length": 1, "batch": 1},
            {"bytes": 0.25, "length": 1},
            {"bytes": 0.25, "group": 1},
            {"bytes": 1, "length": 1, "group": 0.5},
        ),
        0.05,
    ),
    "encoder": Kind(
        ("units",),
        ("units", "length", "head_dim", "batch", "bytes"),
        (
            {"units": 1, "length": 1, "head_dim": HEAD_DIM},
            {"units": 0.125, "length": 2},
            {"length": 0.5, "head_dim": HEAD_DIM},
            {"bytes": 0.25, "length": 1},
        ),
        0.05,
    ),
    "mla": Kind(
        ("units",),
        ("batch", "length", "heads", "bytes"),
        ({"batch": 1, "length": 1, "heads": 1}, {"bytes": 0.25, "length": 1}, {"bytes": 0.25, "heads": 1}),
        0.05,
    ),
    "absorbed": Kind(
        (),
        ("tokens", "heads", "bytes"),
        ({"tokens": 0.5, "heads": 1}, {"bytes": 0.25}, {"bytes": 0.5, "heads": 1}),
        0.05,
    ),
    "sparse": Kind(
        ("tokens",),
        ("tokens", "length", "heads", "batch", "hidden", "bytes"),
        (
            {"tokens": 1, "length": 1, "heads": 1},
            {"batch": 1, "length": 1},
            {"tokens": 1, "hidden": 0.25},
            {"heads": 1, "hidden": 0.25},
            {"bytes": 0.25, "length": 1},
        ),
        0.05,
    ),
    "hyper": Kind(
        ("tokens",),
        ("tokens", "hidden", "bytes"),
        ({"tokens": 0.5}, {"tokens": 1, "hidden": 0.5}, {"bytes": 0.5}),
        0.05,
    ),
    "convolution": Kind(
        ("sequences",),
        ("tokens", "length", "channels", "bytes"),
        ({"tokens": 1, "length": 1}, {"tokens": 1, "channels": 1}, {"length": 1, "channels": 1}, {"bytes": 0.5}),
    ),
    "recurrence": Kind(
        ("units",),
        ("states", "length", "heads", "batch", "bytes"),
        (
            {"states": 1, "length": 1},
            {"states": 1, "heads": 1},
            {"heads": 1, "length": 1},
            {"length": 1, "batch": 1},
            {"bytes": 0.25, "length": 1},
            {"bytes": 0.5, "heads": 1},
        ),
    ),
    "collective": Kind(("root", "buffer"), ("bytes", "chunk"), ({"bytes": 1}, {"chunk": 1})),
    "exchange": Kind(
        ("tokens",),
        ("tokens", "hidden", "topk", "sms"),
        (
            {"tokens": 1, "hidden": 0.5},
            {"tokens": 1, "topk": 1},
            {"tokens": 1, "sms": 1},
            {"hidden": 0.5, "sms": 1},
            {"topk": 1, "sms": 1},
        ),
    ),
}


def tiles_of(kind: str) -> tuple[int, ...]:
    """The tiles among which a fit of that kind of kernel chooses."""
    return {"gemm": TILES, "gemm_aligned": TILES, "experts": TILES, "encoder": tuple(SEEN)}.get(kind, TILES[:1])


class Rows(NamedTuple):
    """Of the group sizes of a rank, float64[...]: all rows, active experts, most rows of one, rows of whole tiles."""

    total: Floats
    active: Floats
    most: Floats
    padded: Floats


def rows_of(group_sizes: npt.ArrayLike, tile: int) -> Rows:
    """int[..., G] rows of each expert -> Rows [...]. `tile` is a power of two."""
    sizes = np.asarray(group_sizes)
    sizes = (sizes if sizes.dtype.kind == "i" else np.ceil(sizes)).astype(np.int64, copy=False)
    whole = (sizes + (tile - 1)) & -tile
    found = (sizes.sum(axis=-1), np.count_nonzero(sizes, axis=-1), sizes.max(axis=-1, initial=0), whole.sum(axis=-1))
    return Rows(*(np.asarray(column, dtype=np.float64) for column in found))


def gemm(
    m: npt.ArrayLike, n: npt.ArrayLike, k: npt.ArrayLike, dtype: str, tile: int = 64, kind: str = "gemm"
) -> Demand:  # fmt: skip
    """Activations come and go in bf16 (fp8 kernels read quantised ones), weights in `dtype`. kind "gemm_aligned": of
    profiles whose fits told odd from round numbers of rows.
    """
    rows, n, k = (np.asarray(value, dtype=np.float64) for value in (m, n, k))
    width = WEIGHT_BYTES[dtype]
    inputs = width if ARITHMETIC.get(dtype, dtype) == "fp8" else BF16
    moved = np.where(rows > 0, rows * (k * inputs + n * BF16) + n * k * width, 0.0)
    padded = 2.0 * np.ceil(rows / tile) * tile * n * k
    tiles = np.ceil(rows / LAST) * np.ceil(n / 128)
    whole = np.ceil(rows).astype(np.int64)
    remainder = np.gcd(whole, ALIGNED) if kind == "gemm_aligned" else np.mod(whole - 1, LAST) + 1
    return Demand(2.0 * rows * n * k, moved, padded, (), logs(rows, n, k, tiles, remainder, moved))


def experts(
    rows: Rows, hidden: npt.ArrayLike, inter: npt.ArrayLike, dtype: str, matrices: npt.ArrayLike,
    choices: npt.ArrayLike | None = None,
) -> Demand:  # fmt: skip
    """Only active experts' weights are read. choices: what passes through the kernel, other ranks' rows included."""
    h, i, number = (np.asarray(value, dtype=np.float64) for value in (hidden, inter, matrices))
    passing = rows.total if choices is None else np.asarray(choices, dtype=np.float64)
    weights = number * h * i
    activations = rows.total * BF16 * (np.minimum(number, 2) * h + number * i)
    active = np.maximum(rows.active, 1e-9)
    each = rows.total / active
    skew, away = rows.most / np.maximum(each, 1e-9), passing / np.maximum(rows.total, 1e-9)
    moved = rows.active * weights * WEIGHT_BYTES[dtype] + activations
    where = (each, active, h + 0 * each, i + 0 * each, skew, away, moved)
    return Demand(
        2.0 * weights * rows.total,
        moved,
        2.0 * weights * rows.padded,
        (passing * h * BF16, passing, rows.active),
        logs(*where),
    )


def attention(
    phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike, head_dim: npt.ArrayLike, v_head_dim: npt.ArrayLike, cache_dtype: str,
) -> Demand:  # fmt: skip
    """Scores and values; a causal block of q queries after c cached tokens sees q (c + (q + 1) / 2) pairs."""
    q, c, number, h, kv, d, v = (
        np.asarray(x, dtype=np.float64) for x in (query, context, requests, heads, kv_heads, head_dim, v_head_dim)
    )
    flops = 2.0 * number * q * (c + (q + 1) / 2) * h * (d + v)
    moved = np.where(q > 0, number * (q * h * BF16 + (c + q) * kv * WEIGHT_BYTES[cache_dtype]) * (d + v), 0.0)
    units = number * kv if phase == "decode" else number * h * np.ceil(q / 128)
    counts = (np.where(moved > 0, units, 0.0),)
    return Demand(flops, moved, flops, counts, logs(units, c + q, h / kv + 0 * c, d + 0 * c, number, moved))


def full_attention(
    query: npt.ArrayLike, requests: npt.ArrayLike, heads: npt.ArrayLike, kv_heads: npt.ArrayLike,
    head_dim: npt.ArrayLike, v_head_dim: npt.ArrayLike, tile: int = 128,
) -> Demand:  # fmt: skip
    """Every one of q tokens sees all q of them, as in an encoder; all of it is bf16, nothing is cached. tile: queries
    that a kernel computes together, one of SEEN.
    """
    q, number, h, kv, d, v = (
        np.asarray(x, dtype=np.float64) for x in (query, requests, heads, kv_heads, head_dim, v_head_dim)
    )
    flops = 2.0 * number * q * q * h * (d + v)
    moved = number * q * (h + kv) * (d + v) * BF16
    tiles, keys = np.ceil(q / tile), np.ceil(q / SEEN[tile]) * SEEN[tile]
    units, padded = number * h * tiles, 2.0 * number * tiles * tile * keys * h * (d + v)
    return Demand(flops, moved, padded, (units + 0 * moved,), logs(units, q, d + 0 * q, number, moved))


def latent_attention(
    phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, heads: npt.ArrayLike,
    cache_dtype: str, latent: tuple[int, int] = (512, 64), expanded: int = MLA_EXPANDED,
) -> Demand:  # fmt: skip
    """MLA: decodes in the latent space (each head reads the cached values), expands keys and values in prefill."""
    q, c, number, h = (np.asarray(value, dtype=np.float64) for value in (query, context, requests, heads))
    pairs = number * q * (c + (q + 1) / 2)
    own = number * q * h * expanded * BF16
    decode = phase == "decode"
    flops = 2.0 * pairs * h * (2 * latent[0] + latent[1] if decode else expanded)
    cached = (sum(latent) if decode else h * expanded) * WEIGHT_BYTES[cache_dtype]
    units = number * h if decode else number * h * np.ceil(q / 128)
    moved = np.where(q > 0, own + number * (c + q) * cached, 0.0)
    counts = (np.where(own > 0, units, 0.0),)
    return Demand(flops, moved, flops, counts, logs(number, c + q, h + 0 * c, moved))


def attention_of(
    shape: Attention, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, heads: int,
    cache_dtype: str,
) -> Demand:  # fmt: skip
    """The core of a model's attention with `heads` of its query heads on this device."""
    if shape.kind == "mla":
        latent = (shape.kv_lora_rank, shape.qk_rope_head_dim)
        width = shape.query_head_dim + shape.v_head_dim
        return latent_attention(phase, query, context, requests, heads, cache_dtype, latent, width)
    kv_heads = max(shape.num_kv_heads * heads // shape.num_heads, 1)
    widths = (shape.query_head_dim, shape.v_head_dim)
    return attention(phase, query, context, requests, heads, kv_heads, *widths, cache_dtype)


def full_attention_of(
    shape: Attention, query: npt.ArrayLike, requests: npt.ArrayLike, heads: int, tile: int = 128
) -> Demand:
    """The same where every token attends to all."""
    kv_heads = max(shape.num_kv_heads * heads // shape.num_heads, 1)
    return full_attention(query, requests, heads, kv_heads, shape.query_head_dim, shape.v_head_dim, tile)


def collective(op: str, nbytes: npt.ArrayLike, world: npt.ArrayLike) -> Demand:
    """A rank moves (w - 1) / w of its buffer, twice in an all-reduce, in w - 1 rounds; that larger groups come nearer
    to the links' rate is a share of time that goes with the buffer itself, whatever the group.
    """
    size, ranks = (np.asarray(value, dtype=np.float64) for value in (nbytes, world))
    moved = size * (ranks - 1) / ranks * (2 if op == "all_reduce" else 1)
    rounds = ranks - 1 + 0 * size
    where = (size + 0 * moved, size / ranks)
    return Demand(0 * moved, moved, rounds, (np.sqrt(moved), size + 0 * moved), logs(*where))


def hyper(part: str, tokens: npt.ArrayLike, hidden: npt.ArrayLike, copies: int) -> Demand:
    """Hyper-connections before a block ("pre": weights of the copies from all of them, their weighted sum) or behind it
    ("post": copies mixed, and the block's output added to each). The copies are bf16.
    """
    t, h = (np.asarray(value, dtype=np.float64) for value in (tokens, hidden))
    rows = copies + 1 if part == "pre" else 2 * copies + 1
    mixing = (2 + copies) * copies**2 + copies if part == "pre" else copies * (copies + 1)
    moved, flops = t * rows * h * BF16, 2.0 * t * h * mixing
    return Demand(flops, moved, flops, (t + 0 * moved,), logs(t + 0 * moved, h + 0 * moved, moved))


def exchange(
    tokens: npt.ArrayLike, hidden: npt.ArrayLike, topk: npt.ArrayLike, dtype: str, low_latency: bool,
    sms: npt.ArrayLike,
) -> Demand:  # fmt: skip
    """DeepEP within a node: normal kernels send a token once to each of its GPUs, low latency once per choice."""
    t, h, k, held = (np.asarray(value, dtype=np.float64) for value in (tokens, hidden, topk, sms))
    gpus = float(GPUS_OF_DEEPEP)
    copies = k if low_latency else gpus - gpus * np.power(1 - 1 / gpus, k)
    moved = t * copies * h * WEIGHT_BYTES[dtype]
    return Demand(0 * moved, moved, 0 * moved, (t + 0 * moved,), logs(t, h, k, np.maximum(held, 1)))


def logs(*values: npt.ArrayLike) -> tuple[Floats, ...]:
    """Coordinates, from what they are the log2 of."""
    return tuple(np.log2(np.maximum(np.asarray(value, dtype=np.float64), 1e-9)) for value in values)
