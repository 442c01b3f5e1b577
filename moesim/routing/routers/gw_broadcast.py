"""Uncertain tokens go to all experts in fine-tuning.

Source: GW-MoE: Resolving Uncertainty in MoE Router with Global Workspace Theory (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import LOGITS, Facts, Inner, Router, inherit
from moesim.routing.routers.select import entropy, joined, rows_of_mask, softmax, take
from moesim.routing.routers.topk_softmax import TopkSoftmax


class GwBroadcast(Router):
    """Tokens with entropy(p) > h nats are assigned to all E experts, weights p; the others by the inner router.

    In training only: elsewhere the inner router decides alone.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router of the other tokens")
    h: float | None = Field(None, ge=0, description="nats; default: 0.95 ln E")

    @property
    def facts(self) -> Facts:
        """Bytes times E / k for uncertain tokens."""
        return inherit(self.inner, needs=self.inner.facts.needs | LOGITS, training="broadcast")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows, or E rows a token."""
        if not given.training:
            return self.inner.route(given)
        p = softmax(given.logits)
        uncertain = entropy(p) > (0.95 * np.log(given.experts) if self.h is None else self.h)
        found = self.inner.route(given)
        everywhere = rows_of_mask(given, np.repeat(uncertain[:, None], given.experts, axis=1), p)
        return joined(take(found, ~uncertain[found.token]), everywhere)

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """In training the entropy of every token beside the inner router."""
        return self.inner.chores(given, found) + (passes(given, 1) if given.training else Chores())
