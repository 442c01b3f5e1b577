"""Tokens that get much attention take more experts.

Source: DA-MoE: Towards Dynamic Expert Allocation (abstract); the map from importance to k is assumed.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import LOGITS, Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class AttentionImportanceK(Router):
    """k_t = clip(round(kmax imp_t / max imp), kmin, kmax), the maximum over the tokens of the same request in the
    batch; then top-k_t, softmax over the chosen.
    """

    kmin: Count = Field(1, description="least experts of a token")
    kmax: Count = Field(8, description="experts of the token with most attention")

    @property
    def facts(self) -> Facts:
        """Later tokens of the request may move its maximum; other requests may not."""
        return Facts(LOGITS | {"importance"}, causal=False, stand_in="importance is drawn, and its map to k assumed")

    def route(self, given: RouterInput) -> Assignment:
        """kmin to kmax rows a token."""
        importance = given.column("importance").astype(np.float64)
        requests, which = np.unique(given.request, return_inverse=True)
        most = np.zeros(len(requests))
        np.maximum.at(most, which, importance)
        number = np.round(self.kmax * importance / np.maximum(most[which], 1e-30))
        number = np.clip(number, self.kmin, self.kmax)
        ids = top_k(given, given.logits, self.kmax)
        ids = np.where(np.arange(ids.shape[1]) < number[:, None], ids, -1)
        return rows_of_table(given, ids, chosen_weights(given.logits, ids))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, and the sum of the attention that each token gets."""
        return gate(given) + passes(given, 2, 1)
