"""One pre-gating router decides for all layers.

Source: Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of Experts (public notes).
"""

from __future__ import annotations

from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class PregatedReadme(Router):
    """The first layer's logits choose the same k experts in every layer; softmax over the chosen."""

    k: Count | None = Field(None, description="experts of a token; default: the model's")

    @property
    def facts(self) -> Facts:
        """All layers are known when the token is."""
        return Facts(prefetch="before the model", stand_in="the first layer's logits are the pre-gating router's")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token."""
        logits = given.logits if given.layer == 0 else given.column("logits", layer=0)
        ids = top_k(given, logits, self.k or given.top_k)
        return rows_of_table(given, ids, chosen_weights(logits, ids))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """One gate before the first layer decides for all."""
        return gate(given) if given.layer == 0 else Chores()
