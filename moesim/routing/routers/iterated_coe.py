"""Route, compute, add, and route again in the same layer.

Source: Chain-of-Experts (code and README of ZihanWang314/CoE read).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, hidden_passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, stacked, top_k


class IteratedCoe(Router):
    """`rounds` times: route with the round's own logits, dispatch, combine, add the inner residual.

    Later rounds' logits are l plus N(0, spread). k defaults to the model's over the rounds (equal compute).
    """

    rounds: int = Field(2, ge=1, le=16, description="times that a token goes through the layer's experts")
    k: Count | None = Field(None, description="experts of a token and round; default: the model's over the rounds")
    spread: float = Field(1.0, ge=0, le=100, description="how far later rounds' logits differ from the first's")

    @property
    def facts(self) -> Facts:
        """One all-to-all pair a round."""
        return Facts(stand_in="later rounds' logits are the first's plus noise")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token and round."""
        return stacked([self._round(given, number) for number in range(self.rounds)])

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate a round, and the inner residual (two states read, one written)."""
        return sum((gate(given) + hidden_passes(given, 3) for _ in range(self.rounds)), Chores())

    def _round(self, given: RouterInput, number: int) -> Assignment:
        moved = np.float32(self.spread) * given.normal(f"round {number}", given.experts) if number else np.float32(0)
        ids = top_k(given, given.logits + moved, self.k or max(given.top_k // self.rounds, 1))
        return rows_of_table(given, ids, chosen_weights(given.logits + moved, ids))
