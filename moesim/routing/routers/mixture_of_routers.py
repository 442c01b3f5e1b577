"""Several sub-routers, weighted by a main one.

Source: Mixture of Routers (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Inner, Router, inherit
from moesim.routing.routers.select import softmax
from moesim.routing.routers.topk_softmax import TopkSoftmax


class MixtureOfRouters(Router):
    """l = sum_j w_j l^(j), w = softmax of the main router. Sub-routers: l plus N(0, spread), main one: N(0, 1)."""

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    routers: Count = Field(3, description="sub-routers")
    spread: float = Field(1.0, ge=0, le=100, description="how far sub-routers differ")

    @property
    def facts(self) -> Facts:
        """Costs J routers and the main one."""
        return inherit(self.inner, stand_in="sub-routers are the logits plus noise")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows."""
        weight = softmax(given.normal("main", self.routers))
        noise = np.zeros((given.tokens, given.experts), dtype=np.float32)
        for number in range(self.routers):
            noise += weight[:, number, None] * given.normal(f"router {number}", given.experts)
        return self.inner.route(given.with_logits(given.logits + np.float32(self.spread) * noise))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """The inner router's gate is the first of J; the main one has J outputs; their scores are mixed."""
        others = sum((gate(given) for _ in range(self.routers - 1)), Chores())
        return self.inner.chores(given, found) + others + gate(given, self.routers) + passes(given, self.routers + 1)
