"""What routers look at, token by token: generated logits, or those of a recorded trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import Field

from moesim import streams
from moesim.routing.routers.input import Column, Floats
from moesim.routing.routers.noise import normals, uniforms
from moesim.routing.shape import RoutingShape
from moesim.routing.sources.replay import Recording
from moesim.routing.sources.source import Tokens
from moesim.routing.synth.knobs import Popularity
from moesim.routing.synth.logits import BASIS
from moesim.routing.synth.popularity import base_shares, reshuffle
from moesim.routing.synth.tokens import HOTTEST, capped
from moesim.routing.trace import RoutingTrace
from moesim.yamlfile import Section

LOGNORMAL = Popularity.model_validate({"lognormal": 0.6})


class LogitKnobs(Section):
    """Generated router logits. Plain top-k of them loads experts by their popularity, to within a few percent."""

    popularity: Popularity = LOGNORMAL
    scale: float = Field(1.0, gt=0, le=100, description="standard deviation of an expert's logit over tokens")
    domains: int = Field(1, ge=1, le=256, description="domains, languages or tasks; one a request")
    domain_strength: float = Field(0.5, ge=0, le=1, description="fraction of experts whose share differs by domain")
    vocabulary: int = Field(1000, ge=1, le=1_000_000, description="token ids, Zipf distributed with exponent 1")
    token_dependence: float = Field(0.0, ge=0, le=1, description="share of logit variance that is the token id's")


@dataclass(frozen=True)
class Columns:
    """Lookups by name (`routers.Column`), and where they come from."""

    name: str
    basis: str
    lookups: Mapping[str, Column]
    notes: tuple[str, ...] = ()


def generated(knobs: LogitKnobs, model: RoutingShape, seed: int) -> Columns:
    """Logits, token ids, domains and importance as pure functions of (seed, layer, request, position)."""
    source = _Generator(knobs, model, seed)
    lookups: dict[str, Column] = {
        "logits": source.logits,
        "token_id": source.token_id,
        "domain": source.domain,
        "importance": source.importance,
    }
    return Columns("generated logits", "generated, assumed", lookups, ("routing: logits are generated, assumed",))


class _Generator:
    """logit = scale (b_e + z): z is standard normal, and b_e = ndtri(k share_e / E) makes an expert's logit exceed zero
    as often as the expert is to be chosen. For many experts that is nearly the k-th highest of a token's logits.
    """

    def __init__(self, knobs: LogitKnobs, model: RoutingShape, seed: int) -> None:
        self._knobs, self._experts = knobs, model.num_experts
        layers = len(model.moe_layers)
        base = base_shares(knobs.popularity, layers, model.num_experts, seed)
        rng = streams.stream(seed, "logits", "domains")
        strength = knobs.domain_strength if knobs.domains > 1 else 0.0
        shares = np.stack([reshuffle(base, strength, rng) for _ in range(knobs.domains)])
        chance = [[capped(share, model.top_k, HOTTEST) for share in domain] for domain in shares]
        self._bias = scipy.special.ndtri(np.clip(np.array(chance), 1e-6, None)).astype(np.float32)
        weight = 1 / np.arange(1, knobs.vocabulary + 1)
        self._frequency = np.cumsum(weight / weight.sum())
        self._own = [streams.key("logits", seed, layer) for layer in range(layers)]
        self._of_id = [streams.key("logits of ids", seed, layer) for layer in range(layers)]
        self._keys = {name: streams.key(name, seed) for name in ("token_id", "domain", "importance")}

    def logits(self, layer: int, request: Tokens, position: Tokens) -> Floats:
        found = normals(self._own[layer], self._experts, request, position)
        share = self._knobs.token_dependence
        if share:
            ids = self.token_id(layer, request, position)
            found *= np.float32(np.sqrt(1 - share))
            found += np.float32(np.sqrt(share)) * normals(self._of_id[layer], self._experts, ids, 0)
        bias = self._bias[:, layer]
        found += bias[0] if len(bias) == 1 else bias[self.domain(layer, request, position)]
        if self._knobs.scale != 1:
            found *= np.float32(self._knobs.scale)
        return found

    def token_id(self, layer: int, request: Tokens, position: Tokens) -> Tokens:
        draw = uniforms(self._keys["token_id"], request, position)
        return np.minimum(np.searchsorted(self._frequency, draw, side="right"), self._knobs.vocabulary - 1)

    def domain(self, layer: int, request: Tokens, position: Tokens) -> Tokens:
        ticket = streams.hash_ints(self._keys["domain"], request) % np.uint64(self._knobs.domains)
        return ticket.astype(np.int64)

    def importance(self, layer: int, request: Tokens, position: Tokens) -> Floats:
        """Log-normal attention mass."""
        chance = uniforms(self._keys["importance"], request, position) + 2**-54
        return np.exp(scipy.special.ndtri(chance)).astype(np.float32)


def recorded(trace: RoutingTrace, seed: int) -> Columns:
    """What a trace carries: ids and domains always; logits, weights and token ids where they were recorded."""
    recording = Recording(trace, seed)
    order = trace.by_request.order

    def layered(values: npt.NDArray[np.float16]) -> Column:
        laid_out = np.ascontiguousarray(values[order].transpose(1, 0, 2))
        return lambda layer, request, position: laid_out[layer].take(recording.rows(request, position), axis=0)

    def row(values: npt.NDArray[np.int32] | npt.NDArray[np.uint8]) -> Column:
        ordered = values[order].astype(np.int64)
        return lambda layer, request, position: ordered.take(recording.rows(request, position))

    lookups: dict[str, Column] = {
        "recorded": recording.layer,
        "domain": row(trace.domain),
    }
    if trace.token_id is not None:
        lookups["token_id"] = row(trace.token_id)
    if trace.weight is not None:
        lookups["recorded_weight"] = layered(trace.weight)
    if trace.logits is not None:
        logits = layered(trace.logits)
        lookups["logits"] = lambda layer, request, position: logits(layer, request, position).astype(np.float32)
    basis = trace.header.basis
    notes = (f"routing: {basis}: which expert comes next is assumed",) if basis == BASIS else ()
    return Columns(f"trace of {trace.header.model}", basis, lookups, notes)
