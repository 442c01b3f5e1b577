"""Cosine between the projected token and each expert's vector.

Source: X-MoE (Chi et al., arXiv 2204.09179) as FSMoE's text describes it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import SCORE_BYTES, Chores, gemm, mixed, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, cosines, rows_of_table, top_k


class CosineXmoe(Router):
    """s = cos(W x, w_e) / tau, then top-k; weights are softmax or sigmoid of s over all experts."""

    tau: float = Field(0.07, gt=0, le=100, description="temperature of the cosines")
    width: Count | None = Field(None, description="dimension that tokens are projected to; default: half the experts")
    k: Count | None = Field(None, description="experts of a token; default: the model's")
    score: Literal["softmax", "sigmoid"] = Field("softmax", description="score of a cosine over tau")

    mixes: bool = Field(False, description="an expert's output is mixed with its input by a sigmoid of their match")

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
        """Projection, norms of what is projected and division by them, norms of the experts' vectors, inner products,
        their temperature, and scores. Source: arXiv 2204.09179, section 3.2 (half the experts); Tutel's cosine gate and
        X-MoE's layer, which mixes, as code read.
        """
        width = self.width or -(-given.experts // 2)
        vectors = Chores(moved=(np.full(len(given.rank_node), 3 * SCORE_BYTES * given.experts * width),))
        unit = passes(given, 1, width) + passes(given, 2, width) + vectors
        scores = passes(given, 2) + passes(given, 2)
        match = mixed(given, found, width) if self.mixes else Chores()
        return gemm(given, width, given.hidden) + unit + gemm(given, given.experts, width) + scores + match
