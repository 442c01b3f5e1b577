"""Capacity filled by score or class in place of token order.

Source: V-MoE's batch prioritised routing (Riquelme et al., arXiv 2106.05974, section 4.1).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.capacity import Factor, limited, padded, places
from moesim.routing.routers.chores import Chores, buffered, sort
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax


class BatchPriority(Router):
    """The inner router's rows, limited to ceil(cf k T / E) places of a rank at an expert, in an `order`: `score`,
    tokens with the highest weight first; `class`, requests of lower domain number first; `token`, the batch's order.
    """

    inner: Inner = Field(TopkSoftmax(norm_topk=False), description="the router whose rows are limited")
    cf: Factor = Field(1.0, description="places over an even share of the rows")
    order: Literal["score", "class", "token"] = Field("score", description="who gets places first")
    pad: bool = Field(False, description="empty places are sent and computed too")

    @property
    def facts(self) -> Facts:
        """Who shares the batch decides who is dropped."""
        needs = self.inner.facts.needs | ({"domain"} if self.order == "class" else set())
        return inherit(self.inner, needs=needs, batch_dependent=True, causal=self.order == "token")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows, some dropped; empty places PAD. The recorded rows of a trace do as well."""
        found = self.inner.route(given)
        k = max(int(found.choice.max(initial=0)) + 1, 1)
        limit = places(given, self.cf, k)
        found = limited(found, limit, self._priority(given, found))
        return padded(found, limit) if self.pad else found

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Tokens are sorted by their priority, then queue for places."""
        ordered = Chores() if self.order == "token" else sort(given, 1)
        return self.inner.chores(given, found) + ordered + buffered(given, found)

    def _priority(self, given: RouterInput, found: Assignment) -> npt.NDArray[Any] | None:
        if self.order == "token":
            return None
        if self.order == "class":
            priority: npt.NDArray[Any] = given.column("domain")[found.token]
            return priority
        best = np.zeros(given.tokens, dtype=np.float32)
        np.maximum.at(best, found.token, found.weight)
        return -best[found.token]
