"""k groups of experts, the best expert of each.

Source: M6-T: Exploring Sparse Expert Models and Beyond; Hetu's KTop1Gate as code read.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.capacity import Factor, limited, places
from moesim.routing.routers.chores import Chores, buffered, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import rows_of_table, softmax, top_k


class PrototypesKTop1(Router):
    """E experts in k groups of neighbours; softmax and argmax inside each; weight p in the group; C = k ceil(cf T /
    E).
    """

    k: Count | None = Field(None, description="groups, and experts of a token; default: the model's k")
    cf: Factor | None = Field(None, description="places over an even share; null: no limit")

    @property
    def facts(self) -> Facts:
        """Batch-dependent where places are limited."""
        return Facts(batch_dependent=self.cf is not None)

    def route(self, given: RouterInput) -> Assignment:
        """One row in each group. Raises BadInput where experts do not divide into k groups."""
        groups = self.k or given.top_k
        if given.experts % groups:
            raise BadInput(f"{given.experts} experts do not divide into {groups} prototypes", where="prototypes_k_top1")
        grouped = given.logits.reshape(given.tokens, groups, -1)
        best = [top_k(given, grouped[:, group], 1) for group in range(groups)]
        ids = np.concatenate(best, axis=1) + np.arange(groups) * grouped.shape[2]
        found = rows_of_table(given, ids, softmax(grouped).max(axis=2))
        return found if self.cf is None else limited(found, groups * places(given, self.cf))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """One gate, cut into groups."""
        return gate(given) if self.cf is None else gate(given) + buffered(given, found)
