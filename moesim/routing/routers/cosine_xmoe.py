"""Cosine between the projected token and each expert's vector.

Source: X-MoE (Chi et al., arXiv 2204.09179) as FSMoE's text describes it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gemm, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, cosines, rows_of_table, top_k


class CosineXmoe(Router):
    """s = cos(W x, w_e) / tau, then top-k; weights are softmax or sigmoid of s over all experts."""

    tau: float = Field(0.07, gt=0, le=100, description="temperature of the cosines")
    width: Count | None = Field(None, description="dimension that tokens are projected to; default: half the experts")
    k: Count | None = Field(None, description="experts of a token; default: the model's")
    score: Literal["softmax", "sigmoid"] = Field("softmax", description="score of a cosine over tau")

    @property
    def facts(self) -> Facts:
        """Logits are read as W x . w_e with orthonormal w_e, whose cosines they give; trained ones are not
        orthogonal.
        """
        return Facts(stand_in="expert vectors are taken to be orthonormal")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token."""
        scores = cosines(given.logits) / np.float32(self.tau)
        ids = top_k(given, scores, self.k or given.top_k)
        return rows_of_table(given, ids, chosen_weights(scores, ids, self.score, norm=False))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Projection, norm of what is projected (read, then read and written), inner products, and their scores.

        Half the experts: arXiv 2204.09179, section 3.2.
        """
        width = self.width or -(-given.experts // 2)
        scores = passes(given, 2) + passes(given, 2)  # softmax; division by norms and tau
        return gemm(given, width, given.hidden) + passes(given, 3, width) + gemm(given, given.experts, width) + scores
