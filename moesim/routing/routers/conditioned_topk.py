"""Task, domain, accent or language moves the scores.

Source: HyperRouter, SpeechMoE2 and others (abstracts); the additive form is assumed.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax


class ConditionedTopk(Router):
    """l + a V[class], V ~ N(0, 1) per layer; the class is the token's domain, and a sets how alike a class routes."""

    inner: Inner = TopkSoftmax()
    a: float = Field(1.0, ge=0, le=100)

    @property
    def facts(self) -> Facts:
        """Traces cohere within a class."""
        return inherit(
            self.inner,
            needs=self.inner.facts.needs | {"logits", "domain"},
            stand_in="an added vector replaces the conditioned gate; its own FLOPs are not priced",
        )

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows."""
        domain = given.column("domain").astype(np.int64)
        rng = given.generator("classes", given.layer)
        vector = rng.normal(size=(int(domain.max(initial=0)) + 1, given.experts)).astype(np.float32)
        return self.inner.route(given.with_logits(given.logits + np.float32(self.a) * vector[domain]))
