"""Logits that are moved while a request runs, or steered.

Source: Rewiring Experts on the Fly, R2-T2, Multilingual Routing in MoE (abstracts); the walk is assumed.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.noise import normals
from moesim.routing.routers.router import Count, Facts, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax
from moesim.yamlfile import Items


class AdditiveTesttime(Router):
    """l + delta(request, position // interval) in the last `layers` layers: a random walk with steps N(0, eta), new
    every `interval` tokens of a request; or, with `steer`, `strength` on the named experts.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    layers: Count = Field(4, description="last layers whose logits move")
    interval: Count = Field(64, description="tokens of a request between two moves")
    eta: float = Field(0.3, ge=0, le=100, description="standard deviation of a move")
    steer: Items[int] = Field((), description="experts whose logits are raised instead of a walk")
    strength: float = Field(1.0, ge=-100, le=100, description="by how much steered logits are raised")

    @property
    def facts(self) -> Facts:
        """Drift inside a request."""
        return inherit(self.inner, stand_in="a random walk replaces the optimisation at test time")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows."""
        if given.layer < given.layers - self.layers:
            return self.inner.route(given)
        return self.inner.route(given.with_logits(given.logits + self._delta(given)))

    def _delta(self, given: RouterInput) -> Floats:
        if self.steer:
            vector = np.zeros((1, given.experts), dtype=np.float32)
            vector[0, [e for e in self.steer if 0 <= e < given.experts]] = self.strength
            return vector
        turn = given.position // self.interval
        request, which = np.unique(np.stack([given.request, turn]), axis=1, return_inverse=True)
        walk = np.zeros((request.shape[1], given.experts), dtype=np.float32)
        for step in range(1, int(turn.max(initial=0)) + 1):
            moves = request[1] >= step
            walk[moves] += normals(given.key("walk"), given.experts, request[0][moves], step)
        found: Floats = np.float32(self.eta) * walk[which]
        return found
