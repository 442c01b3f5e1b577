"""The recorded mask decides: a trace is itself a router.

Source: R3, Stabilizing MoE Reinforcement Learning by Aligning Training and Inference Routers (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim import streams
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Fraction, Router
from moesim.routing.routers.select import chosen_weights, rows_of_table
from moesim.routing.shape import NO_EXPERT


class ReplayMaskR3(Router):
    """The recorded experts; a share `mismatch` of (token, layer) takes those of another recorded token instead.
    Weights are recomputed from logits over the mask where there are logits, else recorded ones, else 1 / k.
    """

    mismatch: Fraction = Field(0.0, description="share of (token, layer) that takes another token's experts")

    @property
    def facts(self) -> Facts:
        """Known before the model runs."""
        return Facts(needs=frozenset({"recorded"}), prefetch="before the model")

    def route(self, given: RouterInput) -> Assignment:
        """The recorded rows."""
        request, position = given.request, given.position
        if self.mismatch:
            other = streams.hash_ints(given.key("mismatch"), request, position) >> np.uint64(24)
            differs = given.uniform("mismatch") < self.mismatch
            request = np.where(differs, other.astype(np.int64), request)
            position = np.where(differs, (other % np.uint64(4096)).astype(np.int64), position)
        recorded = given.column("recorded", request=request, position=position)
        ids = np.where(recorded == NO_EXPERT, -1, recorded.astype(np.int64))
        if "logits" in given.columns:
            return rows_of_table(given, ids, chosen_weights(given.logits, ids))
        if "recorded_weight" in given.columns:
            weight = given.column("recorded_weight", request=request, position=position)
            return rows_of_table(given, ids, weight.astype(np.float32))
        return rows_of_table(given, ids, np.full(ids.shape, 1 / ids.shape[1], dtype=np.float32))
