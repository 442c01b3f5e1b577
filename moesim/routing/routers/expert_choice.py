"""Every expert takes its best tokens.

Source: Mixture-of-Experts with Expert Choice Routing (Zhou et al., arXiv 2202.09368); FSMoE's text.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.chores import Chores, gate, layout, select_columns
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import highest, rows_of_mask, softmax


class ExpertChoice(Router):
    """P = softmax of l over experts; each expert takes the top C = ceil(T c / E) of its column; weights P[t, e].

    `c` is the mean number of experts a token (default: the model's k). `max_per_token` drops a token's lightest rows,
    and loads are no longer equal then.
    """

    c: float | None = Field(None, gt=0, description="mean experts of a token; default: the model's k")
    max_per_token: Count | None = Field(None, description="most experts of a token; null: no limit")

    @property
    def facts(self) -> Facts:
        """Later tokens and other requests compete for the same places."""
        return Facts(causal=False, batch_dependent=True)

    def route(self, given: RouterInput) -> Assignment:
        """C rows an expert; a token may have none."""
        p = softmax(given.logits)
        number = min(int(np.ceil(given.tokens * (self.c or given.top_k) / given.experts)), given.tokens)
        columns = np.ascontiguousarray(p.T)
        chosen = highest(columns, number, lambda rows: given.tickets(given.experts).T[rows])
        mask = np.zeros(columns.shape, dtype=bool)
        np.put_along_axis(mask, chosen, True, axis=1)
        found = rows_of_mask(given, mask.T, p)
        if self.max_per_token is None:
            return found
        return found.with_status(np.where(found.choice < self.max_per_token, Status.KEPT, Status.DROPPED))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, the best of every expert's column, and the rows gathered and scattered: nobody queues for places."""
        return gate(given) + select_columns(given, given.top_k) + layout(given, found)
