"""Unconditional tokens to fixed experts, the others to prototypes by cosine.

Source: ProMoE, Routing Matters in MoE: Scaling Diffusion Transformers (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, hidden_passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Router
from moesim.routing.routers.select import cosines, pick, rows_of_table, top_k


class TwoStepPromoe(Router):
    """A share `u` of the requests is unconditional: their tokens go to the first `fixed` experts, weight 1 / fixed. The
    others go to the top-k of the rest by cosine; weights are the cosines.
    """

    u: Fraction = Field(0.1, description="share of requests that are unconditional")
    fixed: Count = Field(1, description="experts of unconditional requests")
    k: Count | None = Field(None, description="experts of a token; default: the model's")

    @property
    def facts(self) -> Facts:
        """Unconditional requests are known beforehand, the others at their layer."""
        return Facts(stand_in="which requests are unconditional is drawn; prototypes are taken to be orthonormal")

    def route(self, given: RouterInput) -> Assignment:
        """`fixed` or k rows a token."""
        scores = cosines(given.logits[:, self.fixed :])
        ids = top_k(given, scores, self.k or given.top_k)
        width = max(self.fixed, ids.shape[1])
        table = np.full((given.tokens, width), -1, dtype=np.int64)
        weight = np.full((given.tokens, width), 1 / self.fixed, dtype=np.float32)
        free = given.request_uniform("unconditional") < self.u
        table[:, : ids.shape[1]] = ids + self.fixed
        weight[:, : ids.shape[1]] = pick(scores, ids)
        table[free] = np.where(np.arange(width) < self.fixed, np.arange(width), -1)
        weight[free] = 1 / self.fixed
        return rows_of_table(given, table, weight)

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Inner products with the prototypes, and the norm of every token."""
        return gate(given, given.experts - self.fixed) + hidden_passes(given, 1)
