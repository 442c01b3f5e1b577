"""Zero, copy and constant experts on every GPU beside the FFN ones.

Source: MoE++: Accelerating Mixture-of-Experts Methods with Zero-Computation Experts (figures read; capacity recalled).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.capacity import limited
from moesim.routing.routers.chores import ROW_BYTES, Chores, buffered, gate, gemm, of_rank, passes
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import pick, rows_of_table, softmax, top_k
from moesim.routing.routers.zero_logits import MATCHED, ZeroLogits

OFTENEST: Final = 0.98  # a choice more certain than that is a bound on the normal distribution's tail


class ZeroCopyConstMoepp(Router):
    """Ids from E on: `zero`, then `copy_`, then `constant` experts, local and free. l gains `residual` times the
    layer before; top-2; softmax. Where their mean is matched, zero-compute experts are chosen 1 / tau times as often as
    FFN ones, which the balance loss aims at. Places per rank: gamma tau T k / (tau E + Z) at an FFN expert, gamma T k /
    (tau E + Z) at others.
    """

    zero: int = Field(1, ge=0, le=1000, description="experts whose answer is zero")
    copy_: int = Field(1, ge=0, le=1000, alias="copy", description="experts that answer with the token itself")
    constant: int = Field(2, ge=0, le=1000, description="experts that answer with a trained vector")
    tau: float = Field(0.75, gt=0, le=1, description="load of an FFN expert over that of a zero-compute one")
    gamma: float | None = Field(1.1, gt=0, description="places over an even share; null: dropless")
    residual: float = Field(0.5, ge=0, le=10, description="share of the logits of the layer before")
    k: Count = Field(2, description="choices of a token")
    logit: ZeroLogits = Field(MATCHED, description="scale of the zero-compute experts' logits")

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
        logits[:, given.experts :] += self._raised(given, logits[:, : given.experts])
        ids = top_k(given, logits, self.k)
        found = rows_of_table(given, ids, pick(softmax(logits), ids))
        return found if self.gamma is None else limited(found, self._places(given))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate over all experts, the matrix of the gating residual, and the rows of zero-compute experts read and
        written where they are."""
        wide = given.experts + self.extra
        own = of_rank(given, found.rank[found.token[found.status == Status.NULL]])
        aside = Chores(moved=(own * (2 * ROW_BYTES * given.hidden),))
        mine = gate(given, wide) + gemm(given, wide, wide) + passes(given, 2, wide) + aside
        return mine if self.gamma is None else mine + buffered(given, found)

    def _all(self, given: RouterInput, logits: Floats, layer: int) -> Floats:
        return np.concatenate([logits, self.logit.drawn(given, self.extra, logits, layer=layer)], axis=1)

    def _raised(self, given: RouterInput, real: Floats) -> Floats:
        """real [T, E] -> float32[T, 1] or a zero: what makes a normal logit exceed a bound 1 / tau times as often."""
        if self.logit.mean != "matched":
            return np.zeros((1, 1), dtype=np.float32)
        often = self.k / (self.tau * given.experts + self.extra)
        apart = scipy.special.ndtri(min(often, OFTENEST)) - scipy.special.ndtri(min(self.tau * often, OFTENEST))
        raised: Floats = np.float32(apart) * real.std(axis=1, keepdims=True)
        return raised

    def _places(self, given: RouterInput) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """int64[R, E + Z]."""
        assert self.gamma is not None
        tokens = np.bincount(given.rank, minlength=len(given.rank_node))
        share = np.where(np.arange(given.experts + self.extra) < given.experts, self.tau, 1.0)
        even = tokens[:, None] * self.k / (self.tau * given.experts + self.extra)
        return np.ceil(np.round(self.gamma * share * even, 9)).astype(np.int64)
