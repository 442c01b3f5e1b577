"""One expert a token, equal loads by assignment.

Source: BASE Layers (Lewis et al., arXiv 2103.16716) and its Sinkhorn form (Clark et al., arXiv 2202.01169).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, layout, mixed, passes
from moesim.routing.routers.input import Floats, Ints, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import pick, rows_of_table, sigmoid, top_k


class SinkhornBase(Router):
    """One expert a token. `sinkhorn`: scale exp(l) to column sums T / E, then argmax: nearly balanced. `exact`: the
    assignment of highest total l with at most ceil(T / E) tokens an expert; it takes T^3 steps, so for small batches.

    Weight sigmoid(l_e). BASE shuffles tokens between ranks first: two more all-to-alls (Hetu), counted in `extra`.
    """

    method: Literal["sinkhorn", "exact"] = Field("sinkhorn", description="scaling to even columns, or exact")
    iters: int = Field(8, ge=1, le=1000, description="most rounds of scaling")
    tol: float = Field(1e-3, gt=0, description="column sums this near to T / E end the iteration")

    @property
    def facts(self) -> Facts:
        """The whole batch is assigned at once."""
        return Facts(causal=False, batch_dependent=True)

    def route(self, given: RouterInput) -> Assignment:
        """One row a token."""
        choose = _exact(given.logits) if self.method == "exact" else top_k(given, self._scaled(given.logits), 1)[:, 0]
        found = rows_of_table(given, choose[:, None], pick(sigmoid(given.logits), choose[:, None]))
        return found.with_extra(shuffle_all_to_alls=2.0)

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, sums of rows and of columns a round of scaling (the exact assignment is priced as that many rounds),
        rows put in order of experts and back, and the mix of each with its input.
        """
        scaled = Chores(moved=passes(given, 1).moved * (2 * self.iters))
        return gate(given) + scaled + layout(given, found) + mixed(given, found)

    def _scaled(self, logits: Floats) -> Floats:
        """[T, E]: rows are left unscaled at the end, which no argmax sees."""
        kernel = np.exp(logits - logits.max(axis=1, keepdims=True))
        even = len(kernel) / kernel.shape[1]
        column = np.ones(kernel.shape[1], dtype=np.float32)
        for _ in range(self.iters):
            row = 1 / (kernel @ column)
            sums = column * (row @ kernel)
            column *= even / np.maximum(sums, 1e-30)
            if np.abs(sums / even - 1).max() < self.tol:
                break
        scaled: Floats = kernel * column
        return scaled


def _exact(logits: Floats) -> Ints:
    """[T, E] -> int64[T]: experts stand ceil(T / E) times as columns of an assignment problem."""
    from scipy.optimize import linear_sum_assignment

    seats = -(-len(logits) // logits.shape[1])
    _, column = linear_sum_assignment(np.repeat(logits, seats, axis=1), maximize=True)
    found: Ints = column.astype(np.int64) // seats
    return found
