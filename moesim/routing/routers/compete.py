"""At some steps all experts run, and the strongest answers win.

Source: CompeteSMoE (abstract); the schedule is assumed.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.chores import Chores, gate, hidden_passes, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k
from moesim.routing.routers.topk_softmax import TopkSoftmax


class Compete(Router):
    """With chance `rate` a training step (the same for all layers) all E experts run and the top-k by |g(E_i(x))|
    count, weights softmax of the norms; the other rows are PROBE. At other steps the router's top-k.

    Norms are softplus(l + N(0, 1)): experts that the router likes answer strongly.
    """

    rate: Fraction = Field(0.1, description="chance that a training step competes")
    k: Count | None = Field(None, description="experts of a token; default: the model's")

    @property
    def facts(self) -> Facts:
        """FLOPs and bytes times E / k at competing steps."""
        stand_in = "norms of the experts' answers are drawn, and the schedule is a chance a step"
        return Facts(stand_in=stand_in, training="competition")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token, or E."""
        k = self.k or given.top_k
        if not self._competes(given):
            return TopkSoftmax(k=k).route(given)
        norms = np.logaddexp(0, given.logits + given.normal("norm", given.experts)).astype(np.float32)
        ids = top_k(given, norms, given.experts)
        weight = np.zeros(ids.shape, dtype=np.float32)
        weight[:, :k] = chosen_weights(norms, ids[:, :k])
        found = rows_of_table(given, ids, weight)
        return found.with_status(np.where(found.choice < k, Status.KEPT, Status.PROBE))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate; where experts compete, also the norm of every answer."""
        norms = hidden_passes(given, given.experts) + passes(given, 2)
        return gate(given) + (norms if self._competes(given) else Chores())

    def _competes(self, given: RouterInput) -> bool:
        return given.training and bool(given.generator("compete", given.step).random() < self.rate)
