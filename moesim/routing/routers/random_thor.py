"""Experts drawn uniformly, without a gate.

Source: THOR, Taming Sparsely Activated Transformer with Stochastic Experts (abstract; the rest recalled).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.noise import uniforms
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import rows_of_table


class RandomThor(Router):
    """A uniform expert for each token or each request; with two `copies` (training) a second one that differs."""

    scope: Literal["token", "request"] = Field("token", description="what is drawn once")
    copies: Literal[1, 2] = Field(1, description="experts of a token; 2 as in training")

    @property
    def facts(self) -> Facts:
        """Needs nothing of the token; known before the model runs."""
        return Facts(needs=frozenset(), prefetch="before the model")

    def route(self, given: RouterInput) -> Assignment:
        """`copies` rows a token, weight 1 each."""
        where = given.position if self.scope == "token" else np.zeros_like(given.position)
        draws = [uniforms(given.key(f"thor {n}"), given.request, where) for n in range(self.copies)]
        ids = np.floor(draws[0] * given.experts).astype(np.int64)[:, None]
        if self.copies == 2:
            step = 1 + np.floor(draws[1] * (given.experts - 1)).astype(np.int64)[:, None]
            ids = np.concatenate([ids, (ids + step) % given.experts], axis=1)
        return rows_of_table(given, ids, np.ones(ids.shape, dtype=np.float32))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Nothing: experts are drawn."""
        return Chores()
