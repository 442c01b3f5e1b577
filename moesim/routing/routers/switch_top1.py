"""One expert a token, limited places, overflow dropped.

Source: Switch Transformers (Fedus et al., arXiv 2101.03961, section 2.2); Hetu's TopGate as code read.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.capacity import Factor, limited, padded, places
from moesim.routing.routers.chores import Chores, buffered, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class SwitchTop1(Router):
    """argmax of softmax, weight p without renormalisation; C = ceil(cf T / E) places of each rank at each expert.

    `order` says who gets them: earlier tokens, or higher p. `pad` sends and computes empty places too.
    """

    cf: Factor | None = Field(1.25, description="places over an even share; null: no limit")
    order: Literal["token", "score"] = Field("token", description="who gets the places first")
    pad: bool = Field(False, description="empty places are sent and computed too")

    @property
    def facts(self) -> Facts:
        """Batch-dependent where places are limited."""
        return Facts(batch_dependent=self.cf is not None, causal=self.cf is None or self.order == "token")

    def route(self, given: RouterInput) -> Assignment:
        """One row a token."""
        ids = top_k(given, given.logits, 1)
        found = rows_of_table(given, ids, chosen_weights(given.logits, ids, norm=False))
        if self.cf is None:
            return found
        limit = places(given, self.cf)
        found = limited(found, limit, -found.weight if self.order == "score" else None)
        return padded(found, limit) if self.pad else found

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, and tokens queue for places."""
        return gate(given) if self.cf is None else gate(given) + buffered(given, found)
