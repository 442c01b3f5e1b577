"""A layer may use experts of its neighbour layers.

Source: ReXMoE: Reusing Experts with Minimal Overhead (abstract; window from its wording).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class PoolRexmoe(Router):
    """Candidates are the experts of layers l - w to l + w; expert j of the n-th of them has id n E + j and sits where
    expert j of layer l does. With `grow` the window widens by one layer every `grow` steps.
    """

    w: int = Field(1, ge=0, le=64, description="layers on either side whose experts are candidates")
    k: Count | None = Field(None, description="experts of a token; default: the model's")
    grow: int = Field(0, ge=0, description="steps after which the window widens by a layer; 0: at once")

    @property
    def facts(self) -> Facts:
        """A token may meet expert j of two layers: two rows."""
        return Facts(stand_in="experts of other layers are placed as the layer's own")

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token."""
        pool = np.concatenate([given.column("logits", layer=layer) for layer in self._window(given)], axis=1)
        ids = top_k(given, pool, self.k or given.top_k)
        return rows_of_table(given, ids, chosen_weights(pool, ids), experts=pool.shape[1])

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate over the experts of all layers in the window."""
        return gate(given, given.experts * len(self._window(given)))

    def _window(self, given: RouterInput) -> range:
        width = min(self.w, given.step // self.grow) if self.grow else self.w
        return range(max(given.layer - width, 0), min(given.layer + width, given.layers - 1) + 1)
