"""Zero, copy and constant experts on every GPU beside the FFN ones.

Source: MoE++: Accelerating Mixture-of-Experts Methods with Zero-Computation Experts (figures read; capacity recalled).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.capacity import limited
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import pick, rows_of_table, softmax, top_k


class ZeroCopyConstMoepp(Router):
    """Ids from E on: `zero`, then `copy_`, then `constant` experts, local and free. l gains `residual` times the
    layer before; top-2; softmax. Places per rank: gamma tau T k / (tau E + Z) at an FFN expert, gamma T k / (tau E +
    Z) at others.
    """

    zero: int = Field(1, ge=0, le=1000)
    copy_: int = Field(1, ge=0, le=1000, alias="copy")
    constant: int = Field(2, ge=0, le=1000)
    tau: float = Field(0.75, gt=0, le=1)
    gamma: float | None = Field(1.1, gt=0, description="null: dropless")
    residual: float = Field(0.5, ge=0, le=10)
    k: Count = 2

    @property
    def facts(self) -> Facts:
        """Batch-dependent where places are limited."""
        stand_in = "logits of zero-compute experts are drawn; one number stands for the gating residual's matrix"
        return Facts(batch_dependent=self.gamma is not None, stand_in=stand_in)

    @property
    def extra(self) -> int:
        """Z, the zero-compute experts."""
        return self.zero + self.copy_ + self.constant

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token; those of zero-compute experts are NULL."""
        logits = self._all(given, given.logits, given.layer)
        if given.layer:
            before = given.column("logits", layer=given.layer - 1)
            logits = logits + np.float32(self.residual) * self._all(given, before, given.layer - 1)
        ids = top_k(logits, self.k)
        found = rows_of_table(given, ids, pick(softmax(logits), ids))
        return found if self.gamma is None else limited(found, self._places(given))

    def _all(self, given: RouterInput, logits: Floats, layer: int) -> Floats:
        return np.concatenate([logits, given.normal("zero-compute", self.extra, layer=layer)], axis=1)

    def _places(self, given: RouterInput) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """int64[R, E + Z]."""
        assert self.gamma is not None
        tokens = np.bincount(given.rank, minlength=len(given.rank_node))
        share = np.where(np.arange(given.experts + self.extra) < given.experts, self.tau, 1.0)
        even = tokens[:, None] * self.k / (self.tau * given.experts + self.extra)
        return np.ceil(np.round(self.gamma * share * even, 9)).astype(np.int64)
