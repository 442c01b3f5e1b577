"""Tabled: a plan's steps by tables, for long runs of one replica.

A step of ranks that all share their attention is a sum: the attention cores of its rows, the head, and a rest that
depends on the number of tokens alone. Where each rank has its own requests (attention data parallel), they wait for the
slowest: what it does by itself (attention, dense parts, head) depends on its own rows, the rest (experts and exchanges)
on the tokens of all, as if they were spread evenly. The rest is what a Pace says of some numbers of tokens, less core
and head, and is interpolated between them; cores are priced row by row, at some contexts, and interpolated as well: no
mean length is put through a price. tests/serving/test_tabled.py holds it to 1 % of the Pace where attention is shared.
Tables are arrays that a compiled function adds up (`serving/sums.py`), here for a Batch and in
`serving/closed_kernel.py` for a whole closed loop; what is not priced yet is priced when it is first needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.serving.clock import Grows, stepped
from moesim.serving.requests import Ints
from moesim.serving.sums import CORES, GRID, HEADS, KNOTS, OWN, PROMPTS, REST, Tables, ticks_of
from moesim.step import Batch, Phase, StepPlan
from moesim.step.pace import Pace
from moesim.step.work import Floats
from moesim.units import PICOSECONDS_PER_SECOND

PROMPT = 512  # longest of the prompts that a priced number of tokens is made of
FEW = 256  # tokens up to which they are decoded ones


@dataclass
class Tabled:
    """A clock of a plan, from its Pace. Raises BadInput where parts overlap, or several groups share attention."""

    plan: StepPlan
    pace: Pace

    def __post_init__(self) -> None:
        layout = self.plan.layout
        if self.plan.schedule.cuts > 1 or min(layout.data_parallel, layout.tensor_parallel) > 1:
            raise BadInput("steps are sums only where all ranks share their attention, or none, and nothing overlaps")
        self.tables = Tables.empty(alone=layout.data_parallel == 1)

    @property
    def schedulers(self) -> int:
        """Of a replica."""
        return self.plan.layout.data_parallel

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        decodes, prompts = batch.phase == Phase.DECODE, batch.phase == Phase.PREFILL
        cuts = np.searchsorted(batch.rank, np.arange(1, self.schedulers) * self.plan.layout.tensor_parallel)

        def each(column: Ints, kept: npt.NDArray[np.bool_]) -> tuple[Ints, ...]:
            return tuple(part[own] for part, own in zip(np.split(column, cuts), np.split(kept, cuts), strict=True))

        rows, new, before = each(batch.context, decodes), each(batch.query, prompts), each(batch.context, prompts)
        emits = tuple(int(part.sum()) for part in np.split(batch.emits, cuts))
        self.reach(int(batch.context.max(initial=0)))
        while True:
            missing = np.zeros(3, dtype=np.int64)
            ticks = ticks_of(*self.tables, rows, new, before, emits, missing)
            if not missing[0]:
                return int(ticks)
            self.learn(missing)

    def ends(self, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
        """See Clock."""
        return stepped(self, batch, grows, now, horizon, most, least)

    def reach(self, context: int) -> None:
        """Cores of decoded rows have a cell for so many tokens of context."""
        self.tables = self.tables.wider(context)

    def learn(self, missing: Ints) -> None:
        """Price what a sum lacked, int64[3] as `ticks_of` says it."""
        kind, low, high = missing.tolist()
        if kind == REST:
            self.tables.rest[low] = self._rest(int(KNOTS[low]))
        elif kind == OWN:
            self.tables.own[low] = self._own(int(KNOTS[low]))
        elif kind == HEADS:
            self.tables.heads[low] = self._head(int(KNOTS[low]))
        elif kind == PROMPTS:
            self.tables.prompts[low, high] = self._prompt(int(KNOTS[low]), int(KNOTS[high]))
        else:
            assert kind == CORES
            self.tables.cores[low] = self._decoded(int(KNOTS[low]))

    def _rest(self, tokens: int) -> float:
        """ps of a step but for its cores and its head, or for all that ranks do by themselves."""
        batch = self._made_of(tokens, self.plan.layout.world)
        if self.schedulers > 1:
            return float(self.pace.ps(batch) - self.pace.unrouted(batch))
        return self.pace.ps(batch) - float(core_seconds(self.plan, batch)[0]) * PICOSECONDS_PER_SECOND

    def _own(self, tokens: int) -> float:
        """ps that a rank takes by itself with so many tokens, but for their cores and the head."""
        batch = self._made_of(tokens, 1)
        return self.pace.unrouted(batch) - float(core_seconds(self.plan, batch)[0]) * PICOSECONDS_PER_SECOND

    def _made_of(self, tokens: int, ways: int) -> Batch:
        """So many tokens, of different requests, none of which goes through the head, on `ways` ranks in turn."""
        size = 1 if tokens <= FEW else PROMPT
        query = np.full(-(-tokens // size), size)
        query[-1] = tokens - size * (len(query) - 1)
        which = np.arange(len(query))
        phase = Phase.DECODE if size == 1 else Phase.PREFILL
        context = PROMPT if size == 1 else 0
        return Batch.of(self.plan.layout.world, which % ways, which, query, context, phase, False)

    def _head(self, emits: int) -> float:
        """ps that so many tokens take in the head: what a step takes longer if all its tokens go through it."""
        ways, which = self.plan.layout.tensor_parallel, np.arange(emits)
        batch = Batch.of(self.plan.layout.world, which % ways, which, 1, PROMPT, Phase.DECODE)
        silent = replace(batch, emits=np.zeros(emits, dtype=np.bool_))
        asked = self.pace.unrouted if self.schedulers > 1 else self.pace.ps
        return float(max(asked(batch) - asked(silent), 0))

    def _decoded(self, rows: int) -> Ints:
        """int64[cells] ps: cores of one row among `rows` alike, after 0, GRID, 2 GRID ... tokens, all layers."""
        groups, ways = self.tables.cores.shape[1], self.plan.layout.tensor_parallel
        group = np.repeat(np.arange(groups), rows)
        batch = Batch.of(groups * ways, group * ways, group, 1, group * GRID, Phase.DECODE)
        each = core_seconds(self.plan, batch)[::ways] / rows
        return np.rint(each * PICOSECONDS_PER_SECOND).astype(np.int64)

    def _prompt(self, rows: int, tokens: int) -> float:
        """ps of the cores of one prompt among `rows` alike, all layers."""
        ways = self.plan.layout.tensor_parallel
        batch = Batch.of(ways, np.zeros(rows, np.int64), np.arange(rows), tokens, 0, Phase.PREFILL)
        return float(core_seconds(self.plan, batch)[0]) / rows * PICOSECONDS_PER_SECOND


def core_seconds(plan: StepPlan, batch: Batch) -> Floats:
    """float64[ranks] s: attention cores, or what stands in for them, of all layers."""
    total = np.zeros(batch.ranks)
    for mixer, layers in enumerate(np.bincount(plan.model.mixer_of).tolist()):
        if layers:
            total += layers * np.broadcast_to(np.asarray(plan.ops.with_mixer(mixer).core(batch).total), batch.ranks)
    return total
