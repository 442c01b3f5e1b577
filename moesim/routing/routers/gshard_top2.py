"""Two experts a token, the second one drawn; first choices get their places first.

Source: GShard (Lepikhin et al., arXiv 2006.16668, algorithm 1); Hetu's topkgating as code read.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.capacity import Factor, limited, padded, places
from moesim.routing.routers.chores import Chores, buffered, gate, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class GshardTop2(Router):
    """e1 = argmax p; e2 = second, kept with chance min(1, 2 p_e2) or always; C = 2 ceil(cf T / E) places.

    Weights p_e / (p_e1 + p_e2). Second choices queue behind all first ones (Hetu's top-k gate does the same).
    """

    cf: Factor | None = Field(1.0, description="places over an even share; null: no limit")
    random_second: bool = Field(True, description="the second expert is kept with chance 2 p")
    pad: bool = Field(False, description="empty places are sent and computed too")

    @property
    def facts(self) -> Facts:
        """Second choices wait for all first ones: not causal where places are limited."""
        return Facts(batch_dependent=self.cf is not None, causal=self.cf is None)

    def route(self, given: RouterInput) -> Assignment:
        """At most two rows a token."""
        ids = top_k(given, given.logits, 2)
        weight = chosen_weights(given.logits, ids)
        if self.random_second:
            second = chosen_weights(given.logits, ids, norm=False)[:, 1]
            ids = np.stack([ids[:, 0], np.where(given.uniform("second") < 2 * second, ids[:, 1], -1)], axis=1)
        found = rows_of_table(given, ids, weight)
        if self.cf is None:
            return found
        limit = 2 * places(given, self.cf)
        found = limited(found, limit, found.choice)
        return padded(found, limit) if self.pad else found

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, the draw that keeps the second choice or not, and both choices queue for places."""
        drawn = passes(given, 2, 2) if self.random_second else Chores()
        return gate(given) + drawn + (Chores() if self.cf is None else buffered(given, found))
