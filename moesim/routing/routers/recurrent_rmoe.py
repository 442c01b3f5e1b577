"""A recurrent router that hands its state from layer to layer.

Source: Layerwise Recurrent Router for Mixture-of-Experts (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gemm, mix, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax


class RecurrentRmoe(Router):
    """l_l = rho Q l_{l-1} + sqrt(1 - rho^2) xi_l, an AR(1) with a fixed orthogonal Q (a permutation with signs) in
    place of the GRU. xi are the layers' own logits; those more than `memory` layers back have faded and are left out.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    rho: Fraction = Field(0.6, description="share of the layer before")
    memory: Count = Field(6, description="layers back that still count")
    width: Count = Field(128, description="of the recurrent state")

    @property
    def facts(self) -> Facts:
        """Inter-layer affinity: earlier layers foretell later ones in part."""
        return inherit(self.inner, stand_in="an AR(1) of the logits replaces the GRU")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows."""
        rng = given.generator("recurrent")
        order = rng.permutation(given.experts)
        sign = rng.choice(np.array([-1, 1], dtype=np.float32), given.experts)
        first = max(given.layer - self.memory, 0)
        logits = given.column("logits", layer=first)
        for layer in range(first + 1, given.layer + 1):
            own = given.logits if layer == given.layer else given.column("logits", layer=layer)
            logits = self.rho * np.take(logits * sign, order, axis=1) + np.float32(np.sqrt(1 - self.rho**2)) * own
        return self.inner.route(given.with_logits(logits))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A projection, a GRU (three gates of input and state; one for all layers), and the gate over its state."""
        own = gemm if given.layer == 0 else mix
        gru = own(given, 3 * self.width, self.width) + own(given, 3 * self.width, self.width)
        state = gemm(given, self.width, given.hidden) + gru + passes(given, 8, self.width)
        return state + gemm(given, given.experts, self.width) + passes(given, 2)
