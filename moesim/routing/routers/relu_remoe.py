"""Active where the logit is positive; a controller holds the sparsity.

Source: ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing (code read).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput, State
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import rows_of_mask

LAMBDA = 1e-8  # the L1 coefficient at the start


class ReluRemoe(Router):
    """Weight relu(l_e - theta). After a step whose sparsity is below 1 - k / E the L1 coefficient lambda is multiplied
    by `mult`, else divided; theta, which stands for what training under lambda does, moves by `rate` in the same sense.
    """

    k: float | None = Field(None, gt=0, description="mean number of experts to hold; default: the model's")
    mult: float = Field(1.2, gt=1, description="by which the L1 coefficient moves in a step")
    rate: float = Field(0.01, gt=0, description="by which all logits move in a step")

    @property
    def facts(self) -> Facts:
        """Variable k without bound."""
        return Facts(stand_in="a shift theta of all logits replaces training under the L1 term", learns=True)

    def route(self, given: RouterInput) -> Assignment:
        """Any number of rows a token, none included."""
        theta = 0.0 if given.state is None else given.state[0]
        shifted = given.logits - np.float32(theta)
        return rows_of_mask(given, shifted > 0, shifted)

    def learn(self, given: RouterInput, found: Assignment) -> State | None:
        """[theta, lambda]."""
        theta, strength = (0.0, LAMBDA) if given.state is None else given.state
        sparsity = 1 - len(found.token) / (given.tokens * given.experts)
        sense = 1 if sparsity < 1 - (self.k or given.top_k) / given.experts else -1
        return np.array([theta + sense * self.rate, strength * self.mult**sense])
