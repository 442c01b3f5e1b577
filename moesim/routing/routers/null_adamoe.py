"""Null experts that cost nothing compete for a token's k places.

Source: AdaMoE: Token-Adaptive Routing with Null Experts (code read).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import pick, renormalised, rows_of_table, softmax, top_k
from moesim.routing.routers.zero_logits import MATCHED, ZeroLogits


class NullAdamoe(Router):
    """`null` columns are appended to l, top-k of the softmax over all; real weights are renormalised over the chosen
    real experts, null rows are NULL and weigh nothing. k defaults to twice the model's.

    `logit` says where the null logits lie, which the balance loss (over the mean load of the nulls) sets in training:
    as high as real ones by default, so that k E / (E + null) choices are real in the mean.
    """

    null: Count = Field(8, description="null experts beside the real ones")
    k: Count | None = Field(None, description="choices of a token, real and null ones; default: twice the model's")
    logit: ZeroLogits = Field(MATCHED, description="scale of the null experts' logits")

    @property
    def facts(self) -> Facts:
        """Variable k."""
        return Facts(stand_in="logits of null experts are drawn on a given scale, not trained")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token, real and null ones. A token of null experts alone goes on by its residual."""
        null = self.logit.drawn(given, self.null, given.logits)
        logits = np.concatenate([given.logits, null], axis=1)
        ids = top_k(given, logits, self.k or 2 * given.top_k)
        weight = renormalised(np.where(ids < given.experts, pick(softmax(logits), ids), 0))
        return rows_of_table(given, ids, weight)

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate with columns for the null experts."""
        return gate(given, given.experts + self.null)
