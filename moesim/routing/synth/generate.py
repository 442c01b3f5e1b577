"""Synthetic traces: tokens that repeat, follow their id, or are drawn anew, layer after layer with affinity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.routing.shape import RoutingShape
from moesim.routing.synth.knobs import Knobs
from moesim.routing.synth.popularity import base_shares, reshuffle
from moesim.routing.synth.tokens import sample_tokens
from moesim.routing.trace import RoutingTrace, TraceHeader, make_trace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DRIFT_BINS = 10  # parts of the trace between which a gradual drift moves on
NO_DOMAIN = -1


def synthesise(knobs: Knobs, model: RoutingShape, seed: int) -> RoutingTrace:
    """A trace of `model` with the given knobs; the header says "synthetic, assumed" and holds them."""
    who = _tokens(knobs, seed)
    load = _Load.of(knobs, model, seed)
    bins = np.arange(knobs.tokens) * load.bins // knobs.tokens
    fresh = np.flatnonzero(who.kind == FRESH)
    rows = np.empty((knobs.tokens, len(model.moe_layers), model.top_k), dtype=np.uint16)
    rows[fresh] = _draw(load, model, bins[fresh], who.domain[fresh], knobs.affinity, seed, "fresh")
    named = np.flatnonzero(who.kind == FROM_ID)
    if len(named):
        ids, which = np.unique(who.token_id[named], return_inverse=True)
        zeros = np.zeros(len(ids), dtype=np.int64)
        rows[named] = _draw(load, model, zeros, zeros, knobs.affinity, seed, "ids")[which]
    original = np.maximum.accumulate(np.where(who.kind != REPEAT, np.arange(knobs.tokens), 0))
    return make_trace(
        _header(knobs, model, seed),
        rows[original],
        request=who.request,
        position=who.position,
        phase=(who.position >= knobs.request_length // 2).astype(np.uint8),
        domain=who.domain,
        step=np.arange(knobs.tokens) // knobs.tokens_per_step,
        token_id=who.token_id,
        where="synthetic",
    )


def _header(knobs: Knobs, model: RoutingShape, seed: int) -> TraceHeader:
    return TraceHeader(
        model=model.name,
        moe_layers=len(model.moe_layers),
        num_experts=model.num_experts,
        top_k=model.top_k,
        origin=f"synthetic, seed {seed}",
        domains=knobs.domains,
        basis="synthetic, assumed",
        evidence={"knobs": knobs.model_dump(mode="json"), "seed": seed},
    )


FRESH, FROM_ID, REPEAT = range(3)


@dataclass(frozen=True)
class _Tokens:
    """Columns [N]; `kind` says whether a token is drawn anew, decided by its id, or repeats the one before it."""

    request: Ints
    position: Ints
    domain: Ints
    token_id: Ints
    kind: Ints


def _tokens(knobs: Knobs, seed: int) -> _Tokens:
    rng = streams.stream(seed, "synth", "tokens")
    number = np.arange(knobs.tokens)
    request, position = number // knobs.request_length, number % knobs.request_length
    frequency = 1 / np.arange(1, knobs.vocabulary + 1)
    token_id = rng.choice(knobs.vocabulary, knobs.tokens, p=frequency / frequency.sum())
    repeat = (rng.random(knobs.tokens) < knobs.locality) & (position > 0)
    from_id = rng.random(knobs.tokens) < knobs.token_dependence
    kind = np.where(repeat, REPEAT, np.where(from_id, FROM_ID, FRESH))
    return _Tokens(request, position, _domains(knobs, int(request[-1]) + 1, rng)[request], token_id, kind)


def _domains(knobs: Knobs, requests: int, rng: np.random.Generator) -> Ints:
    """int64[requests]: weights of the domains swing as 1 + amplitude cos(2 pi (step / period - d / D))."""
    count = len(knobs.domains)
    step = np.arange(requests) * knobs.request_length / knobs.tokens_per_step
    turn = step / knobs.mix_period if knobs.mix_period else np.zeros(requests)
    phase = turn[:, None] - np.arange(count) / count
    swing = knobs.mix_amplitude if knobs.mix_period else 0.0
    weight = np.cumsum(1 + swing * np.cos(2 * np.pi * phase), axis=1)
    ticket = rng.random(requests) * weight[:, -1]
    chosen: Ints = np.minimum((ticket[:, None] >= weight).sum(axis=1), count - 1)
    return chosen


@dataclass(frozen=True)
class _Load:
    """share [bins, domains, L, E]: what experts get in each part of the trace and each domain."""

    share: Floats

    @property
    def bins(self) -> int:
        return len(self.share)

    @staticmethod
    def of(knobs: Knobs, model: RoutingShape, seed: int) -> _Load:
        base = base_shares(knobs.popularity, len(model.moe_layers), model.num_experts, seed)
        rng = streams.stream(seed, "synth", "domains")
        domains = np.stack([reshuffle(base, knobs.domain_strength, rng) for _ in knobs.domains])
        bins = [domains]
        for epoch in range(1, knobs.epochs):
            moved = streams.stream(seed, "synth", "churn", epoch)
            bins.append(np.stack([reshuffle(share, knobs.churn, moved) for share in bins[-1]]))
        return _Load(_drifted(np.stack(bins), knobs, seed))


def _drifted(share: Floats, knobs: Knobs, seed: int) -> Floats:
    """[epochs, D, L, E] -> [bins, D, L, E]: moves linearly towards shares of which a fraction was dealt anew."""
    if not knobs.drift:
        return share
    parts = -(-DRIFT_BINS // len(share))
    fine = np.repeat(share, parts, axis=0)
    progress = (np.arange(len(fine)) + 0.5) / len(fine)
    goal = np.empty_like(fine)
    for part in range(len(fine)):  # one deal for the whole trace, applied to the shares of each epoch
        rng = streams.stream(seed, "synth", "drift")
        goal[part] = np.stack([reshuffle(one, knobs.drift, rng) for one in fine[part]])
    weight = progress[:, None, None, None]
    return (1 - weight) * fine + weight * goal


def _draw(
    load: _Load, model: RoutingShape, bins: Ints, domain: Ints, affinity: float, seed: int, purpose: str
) -> npt.NDArray[np.uint16]:
    """bins, domain [n] -> uint16[n, L, k]: layer by layer, a choice follows the one before with chance `affinity`."""
    rows = np.empty((len(bins), len(model.moe_layers), model.top_k), dtype=np.uint16)
    groups = load.share.shape[1]
    cell = bins * groups + domain
    for which in np.unique(cell):
        mine = np.flatnonzero(cell == which)
        share = load.share[which // groups, which % groups]
        rng = streams.stream(seed, "synth", purpose, int(which))
        rows[mine] = _walk(share, model, len(mine), affinity, rng)
    return rows


def _walk(
    share: Floats, model: RoutingShape, tokens: int, affinity: float, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """share [L, E] -> uint16[tokens, L, k]; successors pair experts of equal rank, so that loads stay as they are."""
    layers: list[npt.NDArray[np.uint16]] = []
    rank = np.argsort(np.argsort(-share, axis=1, kind="stable"), axis=1)
    order = np.argsort(-share, axis=1, kind="stable")
    for layer in range(len(share)):
        drawn = sample_tokens(share[layer], model.top_k, model.num_groups, model.topk_groups, tokens, rng)
        drawn = rng.permuted(drawn, axis=1)
        if layer and affinity:
            follower = order[layer][rank[layer - 1]][layers[-1]].astype(np.uint16)
            drawn = _mixed(follower, drawn, rng.random(drawn.shape) < affinity)
        layers.append(drawn)
    return np.stack(layers, axis=1)


def _mixed(
    follower: npt.NDArray[np.uint16], drawn: npt.NDArray[np.uint16], follows: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint16]:
    """[n, k] each: the follower where it follows, else the next drawn expert that no follower of the token took."""
    taken = ((drawn[:, :, None] == follower[:, None, :]) & follows[:, None, :]).any(axis=2)
    free = np.take_along_axis(drawn, np.argsort(taken, axis=1, kind="stable"), axis=1)
    turn = np.maximum(np.cumsum(~follows, axis=1) - 1, 0)
    return np.where(follows, follower, np.take_along_axis(free, turn, axis=1))
