"""Uncertain tokens go to all experts in fine-tuning.

Source: GW-MoE: Resolving Uncertainty in MoE Router with Global Workspace Theory (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import LOGITS, Facts, Inner, Router, inherit
from moesim.routing.routers.select import entropy, joined, rows_of_mask, softmax, take
from moesim.routing.routers.topk_softmax import TopkSoftmax


class GwBroadcast(Router):
    """Tokens with entropy(p) > h nats are assigned to all E experts, weights p; the others by the inner router.

    Training only: for inference, use the inner router alone.
    """

    inner: Inner = TopkSoftmax()
    h: float | None = Field(None, ge=0, description="nats; default: 0.95 ln E")

    @property
    def facts(self) -> Facts:
        """Bytes times E / k for uncertain tokens."""
        return inherit(self.inner, needs=self.inner.facts.needs | LOGITS)

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows, or E rows a token."""
        p = softmax(given.logits)
        uncertain = entropy(p) > (0.95 * np.log(given.experts) if self.h is None else self.h)
        found = self.inner.route(given)
        everywhere = rows_of_mask(given, np.repeat(uncertain[:, None], given.experts, axis=1), p)
        return joined(take(found, ~uncertain[found.token]), everywhere)
