"""A fixed orthogonal gate, a pull towards the own node, and the least places that such a gate needs.

Source: LocMoE: A Low-overhead MoE for Large Language Model Training (public notes).
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.capacity import limited
from moesim.routing.routers.chores import Chores, buffered, hidden_passes, passes
from moesim.routing.routers.input import Ints, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class LocalityLocmoe(Router):
    """l_e + mu where e is on the token's own node; top-1; softmax. `mu` replaces the locality loss. A rank's tokens
    have `smallest_capacity` of them as places at each expert. Its gate, GrAP, has no weights: means of E slices.
    """

    mu: float = Field(1.0, ge=0, le=100, description="by how much experts on the own node are preferred")
    delta: float | None = Field(
        0.01, ge=0, le=1, description="likeness of tokens that an expert has to tell apart, assumed; null: no limit"
    )

    @property
    def facts(self) -> Facts:
        """Inter-node bytes fall with mu."""
        return Facts(batch_dependent=self.delta is not None, stand_in="an added mu replaces the locality loss")

    def route(self, given: RouterInput) -> Assignment:
        """One row a token. Raises BadInput where delta is too large for the width of the model."""
        near = given.expert_node == given.rank_node[given.rank][:, None]
        logits = given.logits + np.float32(self.mu) * near
        ids = top_k(given, logits, 1)
        found = rows_of_table(given, ids, chosen_weights(logits, ids, norm=False))
        return found if self.delta is None else limited(found, self._places(given, self.delta))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Hidden states read for the means, then the scores; no GEMM."""
        mine = hidden_passes(given, 1) + passes(given, 2)
        return mine if self.delta is None else mine + buffered(given, found)

    def _places(self, given: RouterInput, delta: float) -> Ints:
        """int64[R]."""
        share = smallest_capacity(given.experts, given.hidden, delta)
        tokens = np.bincount(given.rank, minlength=len(given.rank_node))
        places: Ints = np.ceil(np.round(min(share, 1.0) * tokens, 9)).astype(np.int64)
        return places


def smallest_capacity(experts: int, width: int, delta: float) -> float:
    """The least share of tokens that an expert needs: 1 / (n erfc(sqrt(delta^2 d / (2 - delta^2)))), as noted.

    Raises BadInput where that is no number: tokens so wide and so unlike that every expert needs more than all.
    """
    tail = math.erfc(math.sqrt(delta**2 * width / (2 - delta**2)))
    if not tail:
        raise BadInput(f"delta {delta:g} asks for endless places at a width of {width}", where="locality_locmoe.delta",
                       way_out="delta: 0.01, or null for no limit")  # fmt: skip
    return 1 / (experts * tail)
