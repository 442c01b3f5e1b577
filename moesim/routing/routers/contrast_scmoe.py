"""Self-contrast: a second pass of every token over experts that the first left out, in the same step.

Source: Unchosen Experts Can Contribute Too: Unleashing MoE Models' Power by Self-Contrast (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import Ints, RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k

NOBODY = -1  # in a table of experts


class ContrastScmoe(Router):
    """Requests come in pairs: an odd one is the weak pass of the even one before it, by the same logits. The strong
    pass takes the top k, the weak one the expert of `rank` alone (rank-k routing).
    """

    k: Count | None = Field(None, description="experts of the strong pass; default: the model's top_k")
    rank: Count = Field(2, description="of the weak pass's expert, 1: the best")

    @property
    def facts(self) -> Facts:
        """The other request of a pair is the same text."""
        return Facts(stand_in="hidden states of the weak pass are those of the strong one")

    def route(self, given: RouterInput) -> Assignment:
        """k rows of a token of a strong pass, one of a weak one."""
        weak = given.request % 2 == 1
        logits = given.column("logits", request=given.request - weak)
        strong = self.k or given.top_k
        ids: Ints = top_k(given, logits, max(strong, self.rank))
        place = np.arange(ids.shape[1])
        taken = np.where(weak[:, None], place == self.rank - 1, place < strong)
        ids = np.where(taken, ids, NOBODY)
        return rows_of_table(given, ids, chosen_weights(logits, ids))
