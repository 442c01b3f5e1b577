"""Loss-free balancing: a bias on the selection, never on the weights.

Source: Auxiliary-Loss-Free Load Balancing Strategy (Wang et al., arXiv 2408.15664, algorithm 1); DeepSeek-V3.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput, State
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import pick, renormalised, rows_of_table, sigmoid, softmax, top_k


class BiasLossfree(Router):
    """Top-k of s + b, weights from s alone, normalised; after a step b_e += u sign(mean load - load_e)."""

    u: float = Field(0.001, gt=0, le=1, description="step of the bias")
    k: Count | None = Field(None, description="experts of a token; default: the model's")
    score: Literal["sigmoid", "softmax"] = Field("sigmoid", description="score of a logit")

    @property
    def facts(self) -> Facts:
        """The bias holds for a whole step: a token's rows do not depend on who shares the batch."""
        return Facts(learns=True)

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token."""
        scores = sigmoid(given.logits) if self.score == "sigmoid" else softmax(given.logits)
        bias = np.zeros(given.experts) if given.state is None else given.state
        ids = top_k(given, scores + bias.astype(np.float32), self.k or given.top_k)
        return rows_of_table(given, ids, renormalised(pick(scores, ids)))

    def learn(self, given: RouterInput, found: Assignment) -> State | None:
        """float64[E] bias."""
        bias = np.zeros(given.experts) if given.state is None else given.state
        moved: State = bias + self.u * np.sign(found.load.mean() - found.load)
        return moved
