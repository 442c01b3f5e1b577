"""Logits for a recording that kept none: its choices and weights stay, what a router saw of the others is made up.

A chosen expert's logit is the logarithm of its recorded weight, so that softmax and top-k give both back.
The other logits are what normal scores would be that came out below the k-th: their spread is the one at which the
expected first and k-th of E normal scores lie as far apart as recorded ones do in the mean of the layer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy

from moesim import streams
from moesim.errors import BadInput
from moesim.routing.routers.noise import uniforms
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
BASIS = "recorded choices, synthesised logits"
NOTE = "logits: chosen experts' are logarithms of recorded weights, all others are synthesised. "
STEP = 1 / 64  # others are whole steps below the last chosen: nearer than half precision keeps, and it packs well
FLOOR = 1e-6  # of a chance, so that the inverse of the normal distribution is finite


def with_logits(trace: RoutingTrace, seed: int = 0) -> RoutingTrace:
    """The trace with logits float16[N, layers, E]; pure in (seed, request, position, layer). Raises BadInput without
    weights, or where a token has fewer than k experts.
    """
    header = trace.header
    if trace.weight is None or header.top_k < 2 or header.top_k >= header.num_experts:
        raise BadInput("has no weights of several experts to make logits of", where=trace.where)
    if (trace.expert >= header.num_experts).any() or (trace.weight <= 0).any():
        raise BadInput("a token took fewer than top-k experts, or with weight 0", where=trace.where)
    logits = np.stack([_layer(trace, layer, seed) for layer in range(header.moe_layers)], axis=1)
    named = replace(header, basis=BASIS, origin=NOTE + header.origin)
    return replace(trace, header=named, logits=logits.astype(np.float16))


def _layer(trace: RoutingTrace, layer: int, seed: int) -> Floats:
    """float64[N, E] of one layer."""
    header, ids = trace.header, trace.expert[:, layer].astype(np.int64)
    chosen = np.log(np.asarray(trace.weight)[:, layer].astype(np.float64)).astype(np.float16).astype(np.float64)
    first, last = chosen.max(axis=1), chosen.min(axis=1, keepdims=True)
    high, low = expected_scores(header.num_experts, header.top_k)
    spread = float((first - last[:, 0]).mean()) / (high - low)
    chance = np.stack(
        [uniforms(streams.key("unseen logits", seed, layer, expert), trace.request, trace.position)
         for expert in range(header.num_experts)], axis=1)  # fmt: skip
    below = low - scipy.special.ndtri(np.clip(chance * scipy.special.ndtr(low), FLOOR, None))
    found: Floats = last - STEP * np.ceil(np.maximum(spread * below, STEP) / STEP)
    np.put_along_axis(found, ids, chosen, axis=1)
    return found


def expected_scores(experts: int, top_k: int) -> tuple[float, float]:
    """About the first and the k-th of E standard normal scores (Blom, Statistical Estimates, 1958)."""
    first, last = (float(scipy.special.ndtri((experts - rank + 0.625) / (experts + 0.25))) for rank in (1, top_k))
    return first, last
