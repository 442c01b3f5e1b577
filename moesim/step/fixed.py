"""What a part of a batch takes that is the same in every layer, in ticks.

What depends on numbers of tokens alone is priced once for each number, or for each set of numbers on the ranks of
tensor-parallel groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from moesim.step.batch import Batch, Phase
from moesim.step.cores import Ahead, CorePrices
from moesim.step.layer_prices import LAYER_PRICES
from moesim.step.lowered import HOST
from moesim.step.ops import LayerOps
from moesim.step.plan import StepPlan
from moesim.step.work import Floats, Work
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
Price = Callable[[LayerOps, Batch], Work]
KEPT = 4096  # sets of numbers of tokens
NEAR, BLOCK = 1 << 14, 64  # up to so many tokens a whole block is priced when one of it is new
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


class Tokens(Protocol):
    """Prices of one kind of work; counts of tokens int64[ranks] are those of a part, or of those that emit."""

    def work(self, part: Batch) -> Work:
        """Seconds float64[ranks]."""

    def ticks(self, part: Batch, stretch: float) -> Int64s:
        """int64[ranks] ps, `stretch` times as long."""

    def knows(self, tokens: Int64s) -> npt.NDArray[np.bool_]:
        """bool[n]: which of these numbers of tokens of a rank, int64[n], were priced, whatever others have."""


def by_tokens(price: Price, ops: LayerOps, *, emitted: bool) -> Tokens:
    """emitted: of tokens that go through the head, not of all."""
    return (ByRank if ops.spread.tensor == 1 else ByGroups)(price, ops, emitted)


class ByRank:
    """Every rank has its own tokens: a table by their number."""

    def __init__(self, price: Price, ops: LayerOps, emitted: bool) -> None:
        self._price, self._ops, self._emitted = price, ops, emitted
        self._known = np.zeros(1, dtype=np.bool_)
        self._seconds: dict[str, Floats] = {}
        self._ticks: dict[float, Int64s] = {}

    def work(self, part: Batch) -> Work:
        """See Tokens."""
        tokens = self._counts(part)
        return Work({family: seconds[tokens] for family, seconds in self._seconds.items()})

    def ticks(self, part: Batch, stretch: float) -> Int64s:
        """See Tokens."""
        tokens = self._counts(part)
        if stretch not in self._ticks:
            self._ticks[stretch] = to_ps(
                np.broadcast_to(Work(self._seconds).stretched(stretch).total, self._known.shape)
            )
        return self._ticks[stretch][tokens]

    def knows(self, tokens: Int64s) -> npt.NDArray[np.bool_]:
        """See Tokens."""
        inside = tokens < len(self._known)
        return inside & self._known[np.where(inside, tokens, 0)]

    def _counts(self, part: Batch) -> Int64s:
        """int64[ranks], all of them priced."""
        tokens = part.head_rows if self._emitted else part.tokens_of_rank
        most = int(tokens.max())
        if most >= len(self._known) or not self._known[tokens].all():
            self._learn(tokens, most)
        return tokens

    def _learn(self, tokens: Int64s, most: int) -> None:
        """Price what is new, and its neighbours; two at least, as Tables: numpy adds a lone one up in another order."""
        if most >= len(self._known):
            self._known = np.append(self._known, np.zeros(most + BLOCK, dtype=np.bool_))
        new = np.unique(tokens[~self._known[tokens]])
        near = np.unique(new[new < NEAR] // BLOCK)[:, None] * BLOCK + np.arange(BLOCK)
        wanted = np.unique(np.concatenate((new, near.ravel(), [0, 1])))
        wanted = wanted[wanted < len(self._known)]
        found = self._price(self._ops, _with(wanted, emitted=self._emitted))
        for family, seconds in found.seconds.items():
            table = self._seconds.get(family, np.zeros(0))
            table = np.append(table, np.zeros(len(self._known) - len(table)))
            table[wanted] = seconds
            self._seconds[family] = table
        self._known[wanted] = True
        self._ticks.clear()


class ByGroups:
    """Ranks of a group share tokens: kept by the numbers of all ranks."""

    def __init__(self, price: Price, ops: LayerOps, emitted: bool) -> None:
        self._price, self._ops, self._emitted = price, ops, emitted
        self._works: dict[bytes, Work] = {}
        self._ticks: dict[tuple[float, bytes], Int64s] = {}

    def work(self, part: Batch) -> Work:
        """See Tokens."""
        key = self._key(part)
        if key not in self._works:
            if len(self._works) >= KEPT:
                self._works.clear()
            self._works[key] = Work(self._price(self._ops, part).seconds)
        return self._works[key]

    def ticks(self, part: Batch, stretch: float) -> Int64s:
        """See Tokens."""
        key = (stretch, self._key(part))
        if key not in self._ticks:
            if len(self._ticks) >= KEPT:
                self._ticks.clear()
            self._ticks[key] = np.broadcast_to(to_ps(self.work(part).stretched(stretch).total), part.ranks)
        return self._ticks[key]

    def knows(self, tokens: Int64s) -> npt.NDArray[np.bool_]:
        """See Tokens."""
        return np.zeros(len(tokens), dtype=np.bool_)

    def _key(self, part: Batch) -> bytes:
        return (part.head_rows if self._emitted else part.tokens_of_rank).tobytes()


def _with(counts: Int64s, *, emitted: bool) -> Batch:
    """A rank for each number of tokens; emitted: all of them go through the head, and each is a row."""
    ranks = np.arange(len(counts))
    if emitted:
        rank = np.repeat(ranks, counts)
        return Batch.of(len(counts), rank, rank, 1, 0, Phase.DECODE)
    some = counts > 0
    return Batch.of(len(counts), ranks[some], ranks[some], counts[some], 0, Phase.PREFILL)
