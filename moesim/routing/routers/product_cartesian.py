"""Two routed sub-layers, whose pair acts as one expert of many.

Source: CartesianMoE: Cartesian Product Routing (abstract; form partly assumed).
"""

from __future__ import annotations

from pydantic import Field

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, stacked, top_k


class ProductCartesian(Router):
    """Experts below `a` are sub-layer A, the others B. Top-ka of A in round 0, top-kb of B in round 1; a pair's
    weight is the product of its two.
    """

    a: int | None = Field(None, ge=1, description="experts of A; default: half")
    ka: Count = Field(1, description="experts of A a token")
    kb: Count = Field(1, description="experts of B a token")

    @property
    def facts(self) -> Facts:
        """B follows A in the same layer."""
        return Facts(stand_in="both sub-layers' logits are those of one layer")

    def route(self, given: RouterInput) -> Assignment:
        """ka + kb rows a token in two rounds. Raises BadInput where A has all experts."""
        a = self.a or given.experts // 2
        if not 0 < a < given.experts:
            raise BadInput(f"A has {a} of {given.experts} experts", where="product_cartesian.a")
        first, second = top_k(given, given.logits[:, :a], self.ka), top_k(given, given.logits[:, a:], self.kb) + a
        return stacked([rows_of_table(given, ids, chosen_weights(given.logits, ids)) for ids in (first, second)])

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate for each sub-layer."""
        a = self.a or given.experts // 2
        return gate(given, a) + gate(given, given.experts - a)
