"""Null experts that cost nothing compete for a token's k places.

Source: AdaMoE: Token-Adaptive Routing with Null Experts (code read).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import pick, renormalised, rows_of_table, softmax, top_k


class NullAdamoe(Router):
    """`null` columns are appended to l, top-k of the softmax over all; real weights are renormalised over the chosen
    real experts, null rows are NULL and weigh nothing. k defaults to twice the model's.

    `level` shifts the null logits, which the balance loss (over the mean load of the nulls) sets in training.
    """

    null: Count = 8
    k: Count | None = None
    level: float = Field(0.0, ge=-100, le=100)

    @property
    def facts(self) -> Facts:
        """Variable k."""
        return Facts(stand_in="logits of null experts are drawn, and their level is a parameter")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token, real and null ones. A token of null experts alone goes on by its residual."""
        null = given.normal("null", self.null) + np.float32(self.level)
        logits = np.concatenate([given.logits, null], axis=1)
        ids = top_k(logits, self.k or 2 * given.top_k)
        weight = renormalised(np.where(ids < given.experts, pick(softmax(logits), ids), 0))
        found = rows_of_table(given, ids, weight)
        return found.with_extra(mean_null_load=float((found.expert >= given.experts).sum() / self.null))
