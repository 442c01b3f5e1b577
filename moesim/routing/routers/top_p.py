"""Experts until their probabilities exceed p.

Source: Harder Tasks Need More Experts: Dynamic Routing in MoE Models (code of Dynamic_MoE read).
"""

from __future__ import annotations

from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, sort
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Fraction, Router
from moesim.routing.routers.select import prefix, rows_of_mask, softmax


class TopP(Router):
    """Sort p descending; keep the prefix up to and including the first index where the sum exceeds `p`; weights p."""

    p: Fraction = Field(0.4, description="sum of probabilities at which a token has enough")

    @property
    def facts(self) -> Facts:
        """Variable k."""
        return Facts()

    def route(self, given: RouterInput) -> Assignment:
        """One row at least."""
        scores = softmax(given.logits)
        return rows_of_mask(given, prefix(given, scores, self.p), scores)

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate and a sort."""
        return gate(given) + sort(given)
