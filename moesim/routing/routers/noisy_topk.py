"""Top-k of scores with noise.

Source: Outrageously Large Neural Networks (Shazeer et al., arXiv 1701.06538, section 2.1); FSMoE's text.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class NoisyTopk(Router):
    """l + N(0, 1) s, top-k, softmax over the kept. `noise` is s, which a trained layer computes per token as
    softplus(n): ln 2 where its weights are still zero. 0 is plain top-k.
    """

    k: Count | None = Field(None, description="experts of a token; default: the model's")
    noise: float = Field(0.6931, ge=0, le=50, description="standard deviation of the noise; 0: none")

    @property
    def facts(self) -> Facts:
        """One noise scale stands for the trained one."""
        return Facts(stand_in="the noise scale is one number, not a trained layer")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token; the noise is a function of the token, so stepping and batching agree."""
        logits = given.logits + np.float32(self.noise) * given.normal("noise", given.experts)
        ids = top_k(given, logits, self.k or given.top_k)
        return rows_of_table(given, ids, chosen_weights(logits, ids))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A second linear layer for the scale, and the sum."""
        return gate(given) + (gate(given) + passes(given, 2) if self.noise else Chores())
