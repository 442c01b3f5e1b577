"""A fixed orthogonal gate and a pull towards the own node.

Source: LocMoE: A Low-overhead MoE for Large Language Model Training (public notes).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class LocalityLocmoe(Router):
    """l_e + mu where e is on the token's own node; top-1; softmax. `mu` replaces the locality loss."""

    mu: float = Field(1.0, ge=0, le=100)

    @property
    def facts(self) -> Facts:
        """Inter-node bytes fall with mu."""
        return Facts(stand_in="an added mu replaces the locality loss")

    def route(self, given: RouterInput) -> Assignment:
        """One row a token. Hidden states go through the GrAP gate; without them the logits are those of a gate."""
        gate = grap(given.column("hidden"), given.experts) if "hidden" in given.columns else given.logits
        near = given.expert_node == given.rank_node[given.rank][:, None]
        logits = gate + np.float32(self.mu) * near
        ids = top_k(logits, 1)
        return rows_of_table(given, ids, chosen_weights(logits, ids, norm=False))


def grap(hidden: npt.NDArray[np.float32], experts: int) -> Floats:
    """[T, d] -> float32[T, experts]: the mean of the i-th of n equal slices of a hidden state (d divides by n)."""
    found: Floats = hidden.reshape(len(hidden), experts, -1).mean(axis=2)
    return found


def smallest_capacity(experts: int, width: int, delta: float) -> float:
    """The least share of tokens that an expert needs: 1 / (n erfc(sqrt(delta^2 d / (2 - delta^2)))), as noted."""
    return 1 / (experts * math.erfc(math.sqrt(delta**2 * width / (2 - delta**2))))
