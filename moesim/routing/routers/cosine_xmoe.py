"""Cosine between the projected token and each expert's vector.

Source: X-MoE (Chi et al., arXiv 2204.09179) as FSMoE's text describes it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, cosines, rows_of_table, top_k


class CosineXmoe(Router):
    """s = cos(W x, w_e) / tau, then top-k; weights are softmax or sigmoid of s over all experts."""

    tau: float = Field(0.07, gt=0, le=100)
    k: Count | None = None
    score: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def facts(self) -> Facts:
        """Logits are read as W x . w_e with orthonormal w_e, whose cosines they give; trained ones are not
        orthogonal.
        """
        return Facts(stand_in="expert vectors are taken to be orthonormal")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token."""
        scores = cosines(given.logits) / np.float32(self.tau)
        ids = top_k(scores, self.k or given.top_k)
        return rows_of_table(given, ids, chosen_weights(scores, ids, self.score, norm=False))
