"""Route, compute, add, and route again in the same layer.

Source: Chain-of-Experts (code and README of ZihanWang314/CoE read).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, stacked, top_k


class IteratedCoe(Router):
    """`rounds` times: route with the round's own logits, dispatch, combine, add the inner residual.

    Later rounds' logits are l plus N(0, spread). k defaults to the model's over the rounds (equal compute).
    """

    rounds: int = Field(2, ge=1, le=16)
    k: Count | None = None
    spread: float = Field(1.0, ge=0, le=100)

    @property
    def facts(self) -> Facts:
        """One all-to-all pair a round."""
        return Facts(stand_in="later rounds' logits are the first's plus noise")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token and round."""
        return stacked([self._round(given, number) for number in range(self.rounds)])

    def _round(self, given: RouterInput, number: int) -> Assignment:
        moved = np.float32(self.spread) * given.normal(f"round {number}", given.experts) if number else np.float32(0)
        ids = top_k(given.logits + moved, self.k or max(given.top_k // self.rounds, 1))
        return rows_of_table(given, ids, chosen_weights(given.logits + moved, ids))
