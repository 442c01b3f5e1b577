"""Empty places take the best tokens that are left.

Source: Rectify-Router, Turn Waste into Worth: Rectifying Top-k Router of MoE (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.capacity import Factor, free_places, places
from moesim.routing.routers.chores import Chores, passes, sort
from moesim.routing.routers.input import Ints, RouterInput
from moesim.routing.routers.router import LOGITS, Facts, Inner, Router, inherit
from moesim.routing.routers.select import Tickets, highest, joined, masked, rows_of_mask, softmax
from moesim.routing.routers.switch_top1 import SwitchTop1


class RectifyFillIn(Router):
    """Each free place of a rank at expert e takes that rank's token with the highest p[t, e] that does not have e:
    FILLED rows, weight p. `cf` is the inner router's capacity factor, `rows` the choices it counts for each token.
    """

    inner: Inner = Field(SwitchTop1(cf=1.0), description="the router whose rows are changed")
    cf: Factor = Field(1.0, description="the inner router's capacity factor")
    rows: int = Field(1, ge=1, description="choices of a token that the inner router counts")

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
            best = highest(scores, int(free[rank].max()), _tickets(given, mine))
            takes = np.arange(best.shape[1]) < free[rank][:, None]
            expert, place = np.nonzero(takes)
            filled[mine[best[expert, place]], expert] = True
        filled &= open_
        more = rows_of_mask(given, filled, p)
        return joined(found, more.with_status(np.full(len(more.token), Status.FILLED)))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Beside the inner router: every expert's column in order, to take the best that it does not have."""
        return self.inner.chores(given, found) + passes(given, 2) + sort(given)


def _tickets(given: RouterInput, tokens: Ints) -> Tickets:
    """Of tokens int64[n] at each expert, an expert a row."""
    return lambda rows: given.tickets(given.experts, tokens).T[rows]
