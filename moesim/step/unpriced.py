"""A plan whose steps have the structure of another's and are lowered at once: no price, and no token goes anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim.costs import Estimate
from moesim.models import Gemm
from moesim.routing import RoutingSource
from moesim.routing.routers import Chores
from moesim.routing.shape import NO_EXPERT
from moesim.routing.sources.source import Experts, PerToken, Tokens
from moesim.step.batch import Batch, Phase
from moesim.step.ops import LayerOps
from moesim.step.plan import StepPlan
from moesim.step.work import CostLog, Floats, Work


def unpriced(plan: StepPlan) -> StepPlan:
    """The plan for its structure alone."""
    ops = plan.ops
    return replace(
        plan, routing=Nowhere(plan.routing),
        ops=Weightless(ops.model, ops.costs, ops.precision, ops.spread, CostLog()),
    )  # fmt: skip


class Weightless(LayerOps):
    """Tasks without seconds."""

    def router(self, batch: Batch, chores: Chores | None = None) -> Work:
        """See LayerOps."""
        return Work()

    def experts(self, rows: npt.NDArray[np.int64], training: bool, choices: npt.ArrayLike | None = None) -> Work:
        """See LayerOps."""
        return Work()

    def _gemms(self, gemms: Iterable[Gemm], rows: npt.NDArray[np.int64], dtype: str | None = None) -> Work:
        return Work()

    def _elementwise(self, moved: npt.NDArray[np.int64] | Floats) -> Work:
        return Work()

    def _hyper(self, tokens: npt.NDArray[np.int64]) -> Work:
        return Work()

    def _core(self, batch: Batch, phase: Phase, noted: Callable[[list[Estimate]], Work]) -> Work:
        return Work()


class Nowhere(PerToken):
    """Every token's choices are none."""

    basis, name, notes = "structure only", "nowhere", ()

    def __init__(self, source: RoutingSource) -> None:
        self.moe_layers, self.num_experts, self.top_k = source.moe_layers, source.num_experts, source.top_k

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """uint16[T, k]."""
        return np.full((len(request), self.top_k), NO_EXPERT, dtype=np.uint16)
