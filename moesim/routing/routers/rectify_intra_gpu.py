"""A dropped row moves to an expert on its own GPU.

Source: Rectify-Router, Turn Waste into Worth: Rectifying Top-k Router of MoE (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.chores import Chores, passes
from moesim.routing.routers.input import Floats, Ints, RouterInput
from moesim.routing.routers.router import LOGITS, Facts, Inner, Router, inherit
from moesim.routing.routers.select import highest, softmax
from moesim.routing.routers.switch_top1 import SwitchTop1


class RectifyIntraGpu(Router):
    """Each dropped (t, e) becomes a RECTIFIED row at argmax p over the experts of t's own GPU that t does not have yet;
    weight p. No bytes between GPUs; places are not counted there. Without such an expert the row stays dropped.
    """

    inner: Inner = Field(SwitchTop1(cf=1.0), description="the router whose rows are changed")

    @property
    def facts(self) -> Facts:
        """After the inner router's capacity."""
        return inherit(self.inner, needs=self.inner.facts.needs | LOGITS)

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows, with other experts where they were dropped."""
        found, p = self.inner.route(given), softmax(given.logits)
        expert, weight, status = found.expert.copy(), found.weight.copy(), found.status.copy()
        allowed = given.expert_rank == given.rank[:, None]
        taken = found.moves
        allowed[found.token[taken], expert[taken]] = False
        dropped = np.flatnonzero(status == Status.DROPPED)
        for choice in np.unique(found.choice[dropped]):
            rows = dropped[found.choice[dropped] == choice]
            token = found.token[rows]
            best = _best(given, token, np.where(allowed[token], p[token], -1))
            fits = allowed[token, best]
            rows, token, best = rows[fits], token[fits], best[fits]
            expert[rows], weight[rows], status[rows] = best, p[token, best], Status.RECTIFIED
            allowed[token, best] = False
        return found.with_rows(expert=expert, weight=weight, status=status)

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Beside the inner router: a second look at the scores."""
        return self.inner.chores(given, found) + passes(given, 2)


def _best(given: RouterInput, token: Ints, scores: Floats) -> Ints:
    """scores [n, E] of tokens int64[n] -> int64[n]: the highest, equal ones by tickets."""
    return highest(scores, 1, lambda tied: given.tickets(given.experts, token[tied]))[:, 0]
