"""What a part of a batch takes that is the same in every layer, in ticks; kept by its numbers of tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.step.batch import Batch
from moesim.step.layer_prices import LAYER_PRICES
from moesim.step.lowered import HOST
from moesim.step.ops import LayerOps
from moesim.step.plan import StepPlan
from moesim.step.work import Work
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
ATTENTION = "attention"
CONTEXTS = ("attention_core",)  # asks for contexts beside tokens, as attention's core does
KEPT = 4096  # prices of parts by their numbers of tokens


class FixedPrices:
    """Ticks of tasks on all ranks of a plan."""

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan
        self._ops = [plan.ops.with_mixer(number) for number in range(len(plan.model.mixers))]
        self._ticks: dict[tuple[str, float, int, bytes, bytes], Int64s] = {}
        self._around: dict[tuple[int, bytes], tuple[Work, Work]] = {}

    def ps(self, name: str, part: Batch, stretch: float, mixer: int) -> Int64s:
        """int64[ranks] ps of a task of that name in layers with that mixer, `stretch` times as long as on all SMs."""
        ops = self._ops[mixer]
        if name == ATTENTION:
            before, after = self._beside_core(part, ops)
            work = before + ops.core_seconds(part) + after
            return to_ps(work.stretched(stretch).total)
        if name in CONTEXTS:
            return to_ps(LAYER_PRICES[name](ops, part).stretched(stretch).total)
        key = (name, stretch, mixer, part.tokens_of_rank.tobytes(), part.head_rows.tobytes())
        if key not in self._ticks:
            if len(self._ticks) >= KEPT:
                self._ticks.clear()
            ticks = to_ps(self._priced(name, part, ops).stretched(stretch).total)
            self._ticks[key] = np.broadcast_to(ticks, part.ranks)
        return self._ticks[key]

    def _beside_core(self, part: Batch, ops: LayerOps) -> tuple[Work, Work]:
        """Projections and norm of attention."""
        key = (ops.number, part.tokens_of_rank.tobytes())
        if key not in self._around:
            if len(self._around) >= KEPT:
                self._around.clear()
            self._around[key] = (_seconds(ops.projections(part)), _seconds(ops.norm(part)))
        return self._around[key]

    def _priced(self, name: str, part: Batch, ops: LayerOps) -> Work:
        if name == HOST:
            return Work({HOST: np.full(part.ranks, self._plan.host_seconds)})
        return LAYER_PRICES[name](ops, part)


def _seconds(work: Work) -> Work:
    """Without what it demands: the clock asks for time only."""
    return Work(work.seconds)
