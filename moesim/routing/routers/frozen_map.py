"""Learn a router, then freeze its map of token ids.

Source: StableMoE: Stable Routing Strategy for Mixture of Experts (abstract; the rest recalled).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, mixed, passes
from moesim.routing.routers.input import RouterInput, State
from moesim.routing.routers.router import Facts, Inner, Router, inherit
from moesim.routing.routers.select import pick, rows_of_table, sigmoid, top_k
from moesim.routing.routers.topk_softmax import TopkSoftmax


class FrozenMap(Router):
    """Before `freeze_step` the inner router; from then on the expert that each token id had last, weight sigmoid(l_e).

    An id that was never seen takes the argmax of its own logits.
    """

    inner: Inner = Field(TopkSoftmax(k=1), description="the router before the freeze")
    freeze_step: int = Field(1, ge=0, description="step from which the map is used")

    @property
    def facts(self) -> Facts:
        """After the freeze a known id decides alone."""
        needs = self.inner.facts.needs | {"logits", "token_id"}
        return inherit(self.inner, needs=needs, prefetch="partly by token id", learns=True)

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows, or one row a token."""
        if given.step < self.freeze_step:
            return self.inner.route(given.without_state())
        ids, table = given.column("token_id"), _table(given, 0)
        known = np.where(ids < len(table), table[np.minimum(ids, len(table) - 1)], -1).astype(np.int64)
        chosen = np.where(known >= 0, known, top_k(given, given.logits, 1)[:, 0])[:, None]
        return rows_of_table(given, chosen, pick(sigmoid(given.logits), chosen))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """The inner router's before the freeze, then a look into the table (an id and an expert a token) and the mix of
        each row with its input.
        """
        frozen = given.step >= self.freeze_step
        return passes(given, 3, 1) + mixed(given, found) if frozen else self.inner.chores(given, found)

    def learn(self, given: RouterInput, found: Assignment) -> State | None:
        """float64[ids]: the first choice of the last token with each id, -1 for ids not seen; fixed once frozen."""
        if given.step >= self.freeze_step:
            return given.state
        ids, first = given.column("token_id"), found.choice == 0
        table = _table(given, int(ids.max()) + 1)
        table[ids[found.token[first]]] = found.expert[first]
        return table


def _table(given: RouterInput, size: int) -> State:
    known = np.full(1, -1.0) if given.state is None else given.state
    return np.concatenate([known, np.full(max(size - len(known), 0), -1.0)])
