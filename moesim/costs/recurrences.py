"""What the two kernels of a linear recurrence demand: the convolution before it, and the recurrence itself."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.costs.shapes import BF16, Demand, logs
from moesim.models import Linear

STATE: Final = 4.0  # bytes of a cell: 1,024 sequences of 32 heads of 128 x 128 take 1.43 ms, 3.0 TB/s in fp32 on H100
CHUNK: Final = 64  # tokens that chunked kernels turn into matrix products
DECODED: Final = {"gdn": 7, "kda": 7, "mamba2": 5, "mamba1": 6, "lightning": 5}  # FLOPs of a cell for one token
CHUNKED: Final = 4  # of a cell: what came before is read out and the state written, as products; the least of all kinds


def convolution(
    phase: str, query: npt.ArrayLike, requests: npt.ArrayLike, channels: npt.ArrayLike, taps: npt.ArrayLike
) -> Demand:
    """A causal convolution of each channel over `query` new tokens of each of `requests` sequences, in bf16; in decode
    the last inputs are read and written beside the token.
    """
    q, number, width, taps = (np.asarray(value, dtype=np.float64) for value in (query, requests, channels, taps))
    tokens = q * number
    tail = number * (taps - 1) * (2 if phase == "decode" else 1)
    moved = np.where(tokens > 0, (2 * tokens + tail) * width * BF16, 0.0)
    flops = 2.0 * tokens * width * taps
    counts = (np.where(tokens > 0, number, 0.0),)
    return Demand(flops, moved, flops, counts, logs(tokens, q + 0 * tokens, width + 0 * tokens, moved))


def recurrence(
    phase: str, query: npt.ArrayLike, requests: npt.ArrayLike, key_heads: npt.ArrayLike, heads: npt.ArrayLike,
    key_dim: npt.ArrayLike, value_dim: npt.ArrayLike, kind: str,
) -> Demand:  # fmt: skip
    """States of `heads` heads are read and written once for each of `requests` sequences; queries, keys, values come
    and results go in bf16. Chunked kernels (prefill) add products within CHUNK tokens: padded.
    """
    q, number, keys, h, dk, dv = (
        np.asarray(value, dtype=np.float64) for value in (query, requests, key_heads, heads, key_dim, value_dim)
    )
    tokens, cells = q * number, h * dk * dv
    decode = phase == "decode"
    moved = np.where(tokens > 0, tokens * BF16 * 2 * (keys * dk + h * dv) + 2 * number * cells * STATE, 0.0)
    flops = tokens * cells * (DECODED[kind] if decode else CHUNKED)
    whole = number * np.ceil(q / CHUNK) * CHUNK
    padded = flops if decode else whole * (6 * cells + 2 * CHUNK * h * (3 * dk + 2 * dv))
    units = number * h * (1 if decode else np.ceil(q / CHUNK))
    where = (number * h, q + 0 * tokens, h + 0 * tokens, number + 0 * tokens, moved)
    return Demand(flops, moved, padded, (np.where(tokens > 0, units, 0.0),), logs(*where))


def demands_of(
    shape: Linear, phase: str, query: npt.ArrayLike, requests: npt.ArrayLike, ways: int
) -> dict[str, Demand]:  # fmt: skip
    """The kernels of a model's layer on one of `ways` ranks, by the role that they play, in order."""
    heads, keys = shape.value_heads // ways, max(shape.key_heads // ways, 1)
    own = recurrence(phase, query, requests, keys, heads, shape.key_dim, shape.value_dim, shape.kind)
    before = {f"conv_{phase}": convolution(phase, query, requests, shape.channels(ways), shape.conv)}
    return {**(before if shape.conv else {}), f"{shape.kind}_{phase}": own}
