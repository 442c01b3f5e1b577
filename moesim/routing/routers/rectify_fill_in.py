"""Empty places take the best tokens that are left.

Source: Rectify-Router, Turn Waste into Worth: Rectifying Top-k Router of MoE (abstract).
"""

from __future__ import annotations

import numpy as np

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.capacity import Factor, free_places, places
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import LOGITS, Facts, Inner, Router, inherit
from moesim.routing.routers.select import joined, masked, rows_of_mask, softmax
from moesim.routing.routers.switch_top1 import SwitchTop1


class RectifyFillIn(Router):
    """Each free place of a rank at expert e takes that rank's token with the highest p[t, e] that does not have e:
    FILLED rows, weight p. `cf` is the inner router's capacity factor, `rows` the choices it counts for each token.
    """

    inner: Inner = SwitchTop1(cf=1.0)
    cf: Factor = 1.0
    rows: int = 1

    @property
    def facts(self) -> Facts:
        """Which places are free depends on all tokens."""
        return inherit(self.inner, needs=self.inner.facts.needs | LOGITS, causal=False, batch_dependent=True)

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows and those that fill its places."""
        found, p = self.inner.route(given), softmax(given.logits)
        free = free_places(found, places(given, self.cf, self.rows))
        open_ = np.ones(p.shape, dtype=bool)
        has = found.moves
        open_[found.token[has], found.expert[has]] = False
        filled = np.zeros(p.shape, dtype=bool)
        for rank in np.unique(given.rank):
            mine = np.flatnonzero(given.rank == rank)
            scores = np.ascontiguousarray(masked(p[mine], open_[mine]).T)
            best = np.argsort(-scores, axis=1)[:, : int(free[rank].max())]
            takes = np.arange(best.shape[1]) < free[rank][:, None]
            expert, place = np.nonzero(takes)
            filled[mine[best[expert, place]], expert] = True
        filled &= open_
        more = rows_of_mask(given, filled, p)
        return joined(found, more.with_status(np.full(len(more.token), Status.FILLED)))
