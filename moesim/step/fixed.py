"""What a part of a batch takes that is the same in every layer, in ticks; kept by its numbers of tokens."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.step.batch import Batch
from moesim.step.by_tokens import BLOCK, Price, Tokens, by_tokens
from moesim.step.cores import Ahead, CorePrices
from moesim.step.layer_prices import LAYER_PRICES
from moesim.step.lowered import HOST
from moesim.step.ops import LayerOps
from moesim.step.plan import StepPlan
from moesim.step.work import Work
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
ATTENTION, HEAD = "attention", "head"
CONTEXTS = ("attention_core", "core")  # ask for contexts beside tokens, as attention's core does
BESIDE: Final[dict[str, Price]] = {"projections": LayerOps.projections, "norm": LayerOps.norm}  # attention's core


class FixedPrices:
    """Ticks of tasks on all ranks of a plan."""

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan
        self._ops = [plan.ops.with_mixer(number) for number in range(len(plan.model.mixers))]
        self._cores = [CorePrices(ops) for ops in self._ops]
        self._tables: dict[tuple[str, int], Tokens] = {}

    def ps(self, name: str, part: Batch, stretch: float, mixer: int) -> Int64s:
        """int64[ranks] ps of a task of that name in layers with that mixer, `stretch` times as long as on all SMs."""
        if name == ATTENTION:
            return self._attention(part, stretch, mixer)
        if name in CONTEXTS:
            return to_ps(LAYER_PRICES[name](self._ops[mixer], part).stretched(stretch).total)
        whole = (self, name, stretch, mixer)
        if whole not in part.memo:
            part.memo[whole] = self._ticks(name, part, stretch, mixer)
        found: Int64s = part.memo[whole]
        return found

    def _attention(self, part: Batch, stretch: float, mixer: int) -> Int64s:
        """int64[ranks] ps of attention with its projections; asked for twice where a routing is renewed."""
        asked = (self, ATTENTION, stretch, mixer)
        context, found = part.memo.get(asked, (None, None))
        if context is not part.context:  # a batch's memo goes on with its next step, whose contexts are others
            found = self._around(self._cores[mixer].of(part), part, stretch, mixer)
            part.memo[asked] = part.context, found
        ticks: Int64s = found
        return ticks

    def ahead(self, part: Batch, stretch: float, mixer: int, steps: int) -> tuple[Int64s, Ahead] | None:
        """int64[n, ranks] ps of attention in this step and the next, see CorePrices.ahead."""
        cores = self._cores[mixer].ahead(part, steps)
        if cores is None:
            return None
        return self._around(Work({cores.family: cores.seconds}), part, stretch, mixer), cores

    def cores(self, mixer: int) -> CorePrices:
        """Of attention in layers with that mixer."""
        return self._cores[mixer]

    def known(self, tokens: int) -> Int64s:
        """A number of tokens and those of its neighbours that all tables know."""
        first = tokens // BLOCK * BLOCK
        near = np.arange(first, first + BLOCK)
        for (name, _), table in self._tables.items():
            near = near if name == HEAD else near[table.knows(near)]
        return near if len(near) else np.array([tokens])

    def around(self, part: Batch, mixer: int) -> tuple[Work, Work]:
        """What stands before and after attention's core."""
        before, after = (self._table(beside, mixer).work(part) for beside in BESIDE)
        return before, after

    def _around(self, cores: Work, part: Batch, stretch: float, mixer: int) -> Int64s:
        """int64[..., ranks] ps of attention with its projections."""
        key = (self, mixer)
        if key not in part.memo:
            part.memo[key] = [self._table(beside, mixer).work(part) for beside in BESIDE]
        before, after = part.memo[key]
        return to_ps((before + cores + after).stretched(stretch).total)

    def _ticks(self, name: str, part: Batch, stretch: float, mixer: int) -> Int64s:
        if name == HOST:
            return np.full(part.ranks, to_ps(self._plan.host_seconds * stretch))
        return self._table(name, mixer).ticks(part, stretch)

    def _table(self, name: str, mixer: int) -> Tokens:
        if (name, mixer) not in self._tables:
            price = BESIDE.get(name) or LAYER_PRICES[name]
            self._tables[name, mixer] = by_tokens(price, self._ops[mixer], emitted=name == HEAD)
        return self._tables[name, mixer]
