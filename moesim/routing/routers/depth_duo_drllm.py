"""Skip, run or repeat a layer, or run a small or a big module.

Source: Dr.LLM: Dynamic Layer Routing in LLMs; Duo-LLM (abstracts).
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.chores import Chores, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, stacked, take, top_k


class DepthDuoDrllm(Router):
    """The layer's experts run 0, 1 or 2 times (`depth`), or not, with ceil(small k) rows or with all k (`duo`).

    `budget` is the mean cost over a plain layer's. `more` is the share of tokens that repeat (depth) or skip (duo); the
    other shares follow. A skipped token's rows are NULL. Which tokens is drawn: a trained router would choose.
    """

    kind: Literal["depth", "duo"] = Field("depth", description="depth: skip, run or repeat; duo: skip, small or big")
    budget: float = Field(0.9, ge=0, le=2, description="mean cost over a plain layer's")
    more: Fraction = Field(0.05, description="share of tokens that repeat (depth) or skip (duo)")
    small: Fraction = Field(0.5, description="duo: share of the k experts in the small module")
    k: Count | None = Field(None, description="experts of a token; default: the model's")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if not all(-1e-9 <= share <= 1 + 1e-9 for share in self.shares):
            raise ValueError(f"no shares of tokens give a budget of {self.budget} with more: {self.more}")
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of tokens that skip, run once or small, and repeat or run big."""
        if self.kind == "depth":
            skip = 1 - self.budget + self.more
            return skip, 1 - skip - self.more, self.more
        big = (self.budget - (1 - self.more) * self.small) / max(1 - self.small, 1e-9)
        return self.more, 1 - self.more - big, big

    @property
    def facts(self) -> Facts:
        """Decided a layer at a time."""
        return Facts(
            stand_in="which tokens skip or repeat is drawn; a skipped layer's attention is computed all the same"
        )

    def route(self, given: RouterInput) -> Assignment:
        """0, k or 2 k rows a token; in two rounds where it repeats."""
        ids = top_k(given, given.logits, self.k or given.top_k)
        skip, middle, _ = self.shares
        draw = given.uniform("depth")
        action = (draw >= skip).astype(int) + (draw >= skip + middle)
        found = rows_of_table(given, ids, chosen_weights(given.logits, ids))
        found = found.with_status(np.where(action[found.token] == 0, Status.NULL, Status.KEPT))
        if self.kind == "depth":
            return stacked([found, take(found, action[found.token] == 2)])
        few = np.ceil(self.small * ids.shape[1])
        return take(found, (action[found.token] != 1) | (found.choice < few))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """The experts' gate, and one that chooses among three actions."""
        return gate(given) + gate(given, 3)
