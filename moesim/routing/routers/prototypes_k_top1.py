"""k groups of experts, the best expert of each.

Source: M6-T: Exploring Sparse Expert Models and Beyond; Hetu's KTop1Gate as code read.
"""

from __future__ import annotations

import numpy as np

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.capacity import Factor, limited, places
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import rows_of_table, softmax


class PrototypesKTop1(Router):
    """E experts in k groups of neighbours; softmax and argmax inside each; weight p in the group; C = k ceil(cf T /
    E).
    """

    k: Count | None = None
    cf: Factor | None = None

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
        ids = grouped.argmax(axis=2) + np.arange(groups) * grouped.shape[2]
        found = rows_of_table(given, ids, softmax(grouped).max(axis=2))
        return found if self.cf is None else limited(found, groups * places(given, self.cf))
