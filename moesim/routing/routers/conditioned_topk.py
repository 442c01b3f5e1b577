"""Task, domain, accent or language moves the scores.

Source: HyperRouter, SpeechMoE2 and others (abstracts); the additive form is assumed.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax


class ConditionedTopk(Router):
    """l + a V[class], V ~ N(0, 1) per layer; the class is the token's domain, and a sets how alike a class routes."""

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    a: float = Field(1.0, ge=0, le=100, description="how alike the tokens of a class route")
    embedding: Count | None = Field(
        None, description="a hypernetwork makes the gate's weights from a vector of this width; null: they are its own"
    )

    @property
    def facts(self) -> Facts:
        """Traces cohere within a class."""
        return inherit(
            self.inner,
            needs=self.inner.facts.needs | {"logits", "domain"},
            stand_in="an added vector replaces the conditioned gate",
        )

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows."""
        domain = given.column("domain").astype(np.int64)
        rng = given.generator("classes", given.layer)
        vector = rng.normal(size=(int(domain.max(initial=0)) + 1, given.experts)).astype(np.float32)
        return self.inner.route(given.with_logits(given.logits + np.float32(self.a) * vector[domain]))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """The inner router's; the hypernetwork (HyperRouter) generates [hidden x E] weights once on every rank."""
        mine = self.inner.chores(given, found)
        if self.embedding is None:
            return mine
        once = np.ones(len(given.rank_node), dtype=np.int64)
        made = given.hidden * given.experts
        return mine + Chores(gemms=((once, made, self.embedding),), held=made * self.embedding)
