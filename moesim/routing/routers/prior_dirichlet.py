"""Dirichlet priors on the gate: drawn, or approached by a shift.

Source: Dirichlet-Prior Shaping and others (abstracts); the drawn form is assumed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from moesim import streams
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import Floats, RouterInput, State
from moesim.routing.routers.router import LOGITS, Count, Facts, Inner, Router
from moesim.routing.routers.select import pick, rows_of_table, softmax, top_k
from moesim.routing.routers.topk_softmax import TopkSoftmax
from moesim.yamlfile import Items

POOL = 2048  # different gates of a layer and domain


class PriorDirichlet(Router):
    """`draw`: p ~ Dirichlet(alpha_m s_m), m the token's domain, s_m log-normal with `spread` and mean 1; top-k of p.

    `shift`: b moves by `rate` (log target - log mean p) a step, so that mean p tends to s / sum(s); then top-k of l +
    b.
    """

    mode: Literal["draw", "shift"] = Field("draw", description="gates drawn from the prior, or shifted to its mean")
    alpha: Items[Annotated[float, Field(gt=0, le=1e6)]] = Field((0.1,), description="concentration, one a domain")
    spread: float = Field(0.0, ge=0, le=5, description="how far experts' shares in the prior differ; 0: even")
    rate: float = Field(0.5, gt=0, le=1, description="mode shift: share of the gap that a step closes")
    k: Count | None = Field(None, description="experts of a token; default: the model's")
    inner: Inner = Field(TopkSoftmax(), description="mode shift: the router of the shifted logits")

    @property
    def facts(self) -> Facts:
        """The prior's effect on a trained gate is modelled, its loss is not."""
        needs = LOGITS if self.mode == "shift" else frozenset({"domain"}) if len(self.alpha) > 1 else frozenset()
        stand_in = "gates are drawn from the prior, or shifted to its mean, in place of training"
        return Facts(needs, stand_in=stand_in, learns=self.mode == "shift")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token, or the inner router's."""
        if self.mode == "shift":
            bias = np.zeros(given.experts) if given.state is None else given.state
            return self.inner.route(given.without_state().with_logits(given.logits + bias.astype(np.float32)))
        p = self._drawn(given)
        ids = top_k(given, p, self.k or given.top_k)
        return rows_of_table(given, ids, pick(p, ids))

    def learn(self, given: RouterInput, found: Assignment) -> State | None:
        """float64[E]: the shift."""
        if self.mode == "draw":
            return given.state
        bias = np.zeros(given.experts) if given.state is None else given.state
        mean = softmax(given.logits + bias).mean(axis=0)
        target = _shares(given.seed, given.layer, 0, given.experts, self.spread)
        moved: State = bias + self.rate * (np.log(target / target.sum()) - np.log(mean))
        return moved

    def _drawn(self, given: RouterInput) -> Floats:
        domain = given.column("domain") if len(self.alpha) > 1 else np.zeros(given.tokens, dtype=np.int64)
        row = np.floor(given.uniform("prior") * POOL).astype(np.int64)
        p = np.empty((given.tokens, given.experts), dtype=np.float32)
        for one in np.unique(domain):
            mine = domain == one
            alpha = self.alpha[int(one) % len(self.alpha)]
            p[mine] = _gates(given.seed, given.layer, int(one), given.experts, alpha, self.spread)[row[mine]]
        return p


def _shares(seed: int, layer: int, domain: int, experts: int, spread: float) -> State:
    """float64[E] with mean 1."""
    drawn = np.exp(spread * streams.stream(seed, "router", "prior", layer, domain).normal(size=experts))
    shares: State = drawn / drawn.mean()
    return shares


@lru_cache(maxsize=8)
def _gates(seed: int, layer: int, domain: int, experts: int, alpha: float, spread: float) -> Floats:
    """float32[POOL, E] draws."""
    rng = streams.stream(seed, "router", "prior draws", layer, domain)
    return rng.dirichlet(alpha * _shares(seed, layer, domain, experts, spread), POOL).astype(np.float32)
