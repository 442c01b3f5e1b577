"""Sampled: tokens drawn so that expert loads are as skewed, and as clustered, as measured load statistics say."""

from __future__ import annotations

from copy import copy
from typing import Self

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.routing.shape import RoutingShape
from moesim.routing.sources.source import Experts, PerToken, Tokens
from moesim.routing.synth.shares import Floats, arrange, exchanged, moved, shares_from_quantiles
from moesim.routing.synth.statistics import LoadStatistics, load_statistics
from moesim.routing.synth.tokens import sample_tokens

POOL = 4096  # different tokens of a layer


class Sampled(PerToken):
    """Follows one file of load statistics: sorted shares, contiguous rank imbalance, correlation of neighbour layers.

    Tokens of a layer are looked up in a pool by a hash of (seed, request, position, layer); layers are independent but
    for their shares. A model with other layers or experts gets the nearest depth and interpolated shares. Raises
    BadInput for an unknown name.
    """

    basis = "sampled, assumed"

    def __init__(self, statistics: str | LoadStatistics, model: RoutingShape, seed: int) -> None:
        given = load_statistics(statistics) if isinstance(statistics, str) else statistics
        self.name = f"sampled after {given.name}"
        self.moe_layers, self.num_experts, self.top_k = len(model.moe_layers), model.num_experts, model.top_k
        self.notes = (f"routing: sampled, assumed (DeepSeek-V3 load statistics {given.name})",)
        self.shares = place_shares(given, self.moe_layers, self.num_experts, seed)
        self._model, self._seed, self._drift = model, seed, given.drift
        self._pool = np.stack([self._tokens("tokens", layer) for layer in range(self.moe_layers)])
        self._salt = streams.key("sampled", seed)
        if given.drift:
            apart = f"{given.drift:.1%} of their load on other experts, as between measured runs of this phase"
            self.planned_on = f"earlier tokens, {apart}"

    def earlier(self) -> Self:
        """The load of another measured run of the phase: shares moved by the files' mean distance from each other."""
        part = copy(self)
        part.shares = moved(self.shares, self._drift, streams.stream(self._seed, "sampled", "earlier"))
        part._pool = np.stack([part._tokens("earlier tokens", layer) for layer in range(self.moe_layers)])
        return part

    def later(self, times: int) -> Self:
        """Other tokens of a load as skewed, moved so many times as far as measured runs of the phase differ."""
        part = copy(self)
        for number in range(times):
            part.shares = exchanged(part.shares, self._drift, streams.stream(self._seed, "sampled", "later", number))
        if times:
            part._pool = np.stack([part._tokens(f"tokens {times} later", one) for one in range(self.moe_layers)])
        return part

    def _tokens(self, which: str, layer: int) -> Experts:
        rng = streams.stream(self._seed, "sampled", which, layer)
        share, model = self.shares[layer], self._model
        return sample_tokens(share, model.top_k, model.num_groups, model.topk_groups, POOL, rng)

    @property
    def pool(self) -> Experts:
        """uint16[layers, POOL, k]: the tokens that there are."""
        return self._pool

    def tickets(self, request: Tokens, position: Tokens) -> npt.NDArray[np.uint64]:
        """int64[T] each -> uint64[T]: with the layer hashed in as well, modulo POOL, the token of the pool."""
        return streams.hash_ints(self._salt, request, position)

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """request int64[T], position int64[T] -> uint16[T, k], distinct, within the model's group limit."""
        ticket = streams.hash_ints(self._salt, request, position, layer) % np.uint64(POOL)
        found: Experts = self._pool[layer].take(ticket.astype(np.int64), axis=0)
        return found


def place_shares(given: LoadStatistics, layers: int, experts: int, seed: int) -> Floats:
    """[layers, experts] shares (mean 1): sorted ones by depth, then placed to the measured imbalances."""
    depth = np.arange(layers) % given.layers if layers <= given.layers else np.arange(layers) * given.layers // layers
    shares = shares_from_quantiles(given.levels, given.quantiles[depth], experts)
    targets = {ranks: values[depth] for ranks, values in given.imbalance.items()}
    correlation = given.neighbour_correlation[np.minimum(depth[1:] - 1, given.layers - 2)]
    return arrange(shares, targets, correlation, given.mean_correlation, streams.stream(seed, "sampled", "places"))
