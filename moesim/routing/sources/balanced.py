"""Balanced: every expert gets equal rows; the ideal that real routing is compared with."""

from __future__ import annotations

import math

import numpy as np

from moesim import streams
from moesim.routing.shape import RoutingShape
from moesim.routing.sources.source import Experts, PerToken, Tokens

ORDERS = 64  # different shuffles of the experts that tokens walk along


class Balanced(PerToken):
    """Tokens walk along shuffled orders of the experts, k at a time: E / gcd(E, k) tokens in a row load all equally.

    The walk is numbered by request + position, so a prompt is even, and so is one decode step of consecutive requests
    at equal positions, up to one row either way; other batches are even up to noise. Group limits hold where the
    groups divide evenly.
    """

    basis = "balanced, assumed"
    name = "balanced"

    def __init__(self, model: RoutingShape, seed: int = 0) -> None:
        self.moe_layers, self.num_experts, self.top_k = len(model.moe_layers), model.num_experts, model.top_k
        rng = streams.stream(seed, "balanced")
        limited = _walks_in_groups(model)
        self._orders = np.stack([_order(model, rng, limited) for _ in range(ORDERS)]).astype(np.uint16)
        self._period = self.num_experts // math.gcd(self.num_experts, self.top_k)
        self._salt = streams.key("balanced", seed)
        kept = limited or model.topk_groups >= model.num_groups
        self.notes = ("routing: balanced by construction, not recorded",) + (
            () if kept else ("routing: balanced, group limit not kept",)
        )

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """request int64[T], position int64[T] -> uint16[T, k], distinct."""
        ticket = request + position
        block = ticket // self._period
        which = (streams.hash_ints(self._salt, block, layer) % np.uint64(ORDERS)).astype(np.int64)
        place = (ticket % self._period)[:, None] * self.top_k + np.arange(self.top_k)
        found: Experts = self._orders[which[:, None], place % self.num_experts]
        return found


def _walks_in_groups(model: RoutingShape) -> bool:
    """Whether runs of k experts can keep to `topk_groups` groups and still use every expert once."""
    groups, used, k = model.num_groups, model.topk_groups, model.top_k
    size = model.num_experts // groups
    return used < groups and groups % used == 0 and k % used == 0 and size % (k // used) == 0


def _order(model: RoutingShape, rng: np.random.Generator, limited: bool) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """int64[experts]: a shuffle; where `limited`, each run of k experts lies in `topk_groups` groups."""
    if not limited:
        return rng.permutation(model.num_experts)
    groups, share = model.num_groups, model.top_k // model.topk_groups
    size = model.num_experts // groups
    members = np.stack([rng.permutation(size) for _ in range(groups)]).reshape(groups, size // share, share)
    turns = np.stack([rng.permutation(groups) for _ in range(size // share)])
    return (turns[:, :, None] * size + members[turns, np.arange(size // share)[:, None]]).reshape(-1)
