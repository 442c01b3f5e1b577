"""Experts until their probabilities exceed p.

Source: Harder Tasks Need More Experts: Dynamic Routing in MoE Models (code of Dynamic_MoE read).
"""

from __future__ import annotations

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Fraction, Router
from moesim.routing.routers.select import prefix, rows_of_mask, softmax


class TopP(Router):
    """Sort p descending; keep the prefix up to and including the first index where the sum exceeds `p`; weights p."""

    p: Fraction = 0.4

    @property
    def facts(self) -> Facts:
        """Variable k."""
        return Facts()

    def route(self, given: RouterInput) -> Assignment:
        """One row at least."""
        scores = softmax(given.logits)
        return rows_of_mask(given, prefix(scores, self.p), scores)
