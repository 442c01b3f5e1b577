"""Plain token choice: the k highest scores.

Source: Outrageously Large Neural Networks (Shazeer et al., arXiv 1701.06538); Mixtral renormalises over the chosen.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, mixed
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class TopkSoftmax(Router):
    """Top-k of the logits; weights are softmax or sigmoid scores, renormalised over the chosen or not."""

    k: Count | None = Field(None, description="experts of a token; default: the model's")
    norm_topk: bool = Field(True, description="weights of a token add up to one")
    score: Literal["softmax", "sigmoid"] = Field("softmax", description="score of a logit")

    mixes: bool = Field(
        False, description="an expert's output is mixed with its input by a sigmoid of their match, as in BASE"
    )

    @property
    def facts(self) -> Facts:
        """Causal, each token for itself."""
        return Facts()

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token."""
        ids = top_k(given, given.logits, self.k or given.top_k)
        return rows_of_table(given, ids, chosen_weights(given.logits, ids, self.score, norm=self.norm_topk))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, and the mix where there is one."""
        return gate(given) + (mixed(given, found) if self.mixes else Chores())
