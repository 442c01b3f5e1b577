"""Tabled: a plan's steps by tables, for long runs of one scheduler: a stretch of decodes costs one vectorised pass.

A step of ranks that all share their attention is a sum: the attention cores of its rows, the head, and a rest that
depends on the number of tokens alone. The rest is what a Pace says of some numbers of tokens, less core and head, and
is interpolated between them; cores are priced row by row, at some contexts, and interpolated as well: no mean length is
put through a price. tests/serving/test_tabled.py holds it to 1 % of the Pace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.serving.requests import Ints
from moesim.step import Batch, Phase, StepPlan
from moesim.step.pace import Pace
from moesim.units import PICOSECONDS_PER_SECOND, to_ps

Floats = npt.NDArray[np.float64]
GRID = 32  # tokens of context between priced ones, and steps of a stretch between those whose cores are added up
OCTAVE = 4  # priced numbers of tokens and rows in an octave
PROMPT = 512  # longest of the prompts that a priced number of tokens is made of
FEW = 256  # tokens up to which they are decoded ones


@dataclass
class Tabled:
    """A clock of a plan, from its Pace. Raises BadInput where ranks do not share their attention, or parts overlap."""

    plan: StepPlan
    pace: Pace
    _rest: dict[int, float] = field(default_factory=dict)
    _cores: dict[int, Floats] = field(default_factory=dict)
    _heads: dict[int, float] = field(default_factory=dict)
    _prompts: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.plan.layout.data_parallel > 1 or self.plan.schedule.cuts > 1:
            raise BadInput("steps are sums only where all ranks share their attention and nothing overlaps")

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        decodes, prompts = batch.phase == Phase.DECODE, batch.phase == Phase.PREFILL
        core = float(self._decoded(batch.context[decodes], 1)[0]) if decodes.any() else 0.0
        core += self._prefilled(batch.query[prompts], batch.context[prompts])
        return round((core + self._fixed(batch.tokens, int(batch.emits.sum()))) * PICOSECONDS_PER_SECOND)

    def stretch(self, batch: Batch, steps: int) -> Ints:
        """int64[steps] ps of steps of decodes alone, each one token further."""
        rows = batch.context[batch.phase == Phase.DECODE]
        return to_ps(self._decoded(rows, steps) + self._fixed(len(rows), len(rows)))

    def _fixed(self, tokens: int, emits: int) -> float:
        """Seconds of a step but for its cores."""
        (low, high), share = _around(tokens)
        rest = self._rest_of(low) * (1 - share) + self._rest_of(high) * share
        if not emits:
            return rest
        (low, high), share = _around(emits)
        return rest + self._head_of(low) * (1 - share) + self._head_of(high) * share

    def _head_of(self, emits: int) -> float:
        """Seconds that so many tokens take in the head: what a step takes longer if all its tokens go through it."""
        if emits not in self._heads:
            ways, which = self.plan.layout.world, np.arange(emits)
            batch = Batch.of(ways, which % ways, which, 1, PROMPT, Phase.DECODE)
            silent = replace(batch, emits=np.zeros(emits, dtype=np.bool_))
            self._heads[emits] = (self.pace.ps(batch) - self.pace.ps(silent)) / PICOSECONDS_PER_SECOND
        return self._heads[emits]

    def _rest_of(self, tokens: int) -> float:
        if tokens not in self._rest:
            batch = self._made_of(tokens)
            seconds = self.pace.ps(batch) / PICOSECONDS_PER_SECOND
            self._rest[tokens] = seconds - float(core_seconds(self.plan, batch)[0])
        return self._rest[tokens]

    def _made_of(self, tokens: int) -> Batch:
        """So many tokens, of different requests, none of which goes through the head, on all ranks in turn."""
        ways = self.plan.layout.world
        size = 1 if tokens <= FEW else PROMPT
        query = np.full(-(-tokens // size), size)
        query[-1] = tokens - size * (len(query) - 1)
        which = np.arange(len(query))
        phase = Phase.DECODE if size == 1 else Phase.PREFILL
        context = PROMPT if size == 1 else 0
        return Batch.of(ways, which % ways, which, query, context, phase, False)

    def _decoded(self, context: Ints, steps: int) -> Floats:
        """float64[steps] s: cores of decoded rows, after context int64[n] tokens and on, all layers."""
        knots = np.arange(0, steps + GRID - 1, GRID).clip(max=steps - 1)
        (low, high), share = _around(len(context))
        at = context[None, :] + knots[:, None]
        sums = sum(
            (self._interpolated(n, at) * part for n, part in ((low, 1 - share), (high, share)) if part),
            start=np.zeros(len(knots)),
        )
        return sums if steps == 1 else np.interp(np.arange(steps), knots, sums)

    def _interpolated(self, rows: int, at: Ints) -> Floats:
        """at int64[knots, n] contexts -> float64[knots] s: of a row among `rows`, added up over n."""
        table = self._core_table(rows, int(at.max()) // GRID + 2)
        cell, rest = np.divmod(at, GRID)
        below = table[cell]
        total: Floats = (below + (table[cell + 1] - below) * (rest / GRID)).sum(axis=1)
        return total

    def _core_table(self, rows: int, cells: int) -> Floats:
        """float64[cells or more] s: one row among `rows` alike, after 0, GRID, 2 GRID ... tokens."""
        known = self._cores.get(rows)
        if known is None or len(known) < cells:
            groups, ways = max(cells, 64, 0 if known is None else 2 * len(known)), self.plan.layout.world
            group = np.repeat(np.arange(groups), rows)
            batch = Batch.of(groups * ways, group * ways, group, 1, group * GRID, Phase.DECODE)
            known = core_seconds(self.plan, batch)[::ways] / rows
            self._cores[rows] = known
        return known

    def _prefilled(self, query: Ints, context: Ints) -> float:
        """Seconds of the cores of chunks, all layers. A chunk after c tokens attends as the prompt up to its end does,
        less the prompt of c; that starts a kernel, too.
        """
        rows, total = len(query), 0.0
        for new, before in zip(query.tolist(), context.tolist(), strict=True):
            total += self._prompt(rows, before + new)
            if before:
                total += self._prompt(rows, 1) - self._prompt(rows, before)
        return total

    def _prompt(self, rows: int, tokens: int) -> float:
        (fewer, more), part = _around(rows)
        (low, high), share = _around(tokens)
        found = 0.0
        for n, of_rows in ((fewer, 1 - part), (more, part)):
            for length, of_length in ((low, 1 - share), (high, share)):
                if of_rows * of_length > 0:
                    found += of_rows * of_length * self._prompt_of(n, length)
        return found

    def _prompt_of(self, rows: int, tokens: int) -> float:
        """Seconds of one prompt among `rows` alike, all layers."""
        if (rows, tokens) not in self._prompts:
            ways = self.plan.layout.world
            batch = Batch.of(ways, np.zeros(rows, np.int64), np.arange(rows), tokens, 0, Phase.PREFILL)
            self._prompts[rows, tokens] = float(core_seconds(self.plan, batch)[0]) / rows
        return self._prompts[rows, tokens]


@cache
def _around(number: int) -> tuple[tuple[int, int], float]:
    """The priced numbers below and above, OCTAVE of them in an octave, and how far it is from one to the other."""
    if number <= 1:
        return (1, 1), 0.0
    place = math.floor(OCTAVE * math.log2(number) + 1e-9)
    low, high = (round(2 ** (k / OCTAVE)) for k in (place, place + 1))
    low = min(low, number)
    return (low, high), (number - low) / max(high - low, 1)


def core_seconds(plan: StepPlan, batch: Batch) -> Floats:
    """float64[ranks] s: attention cores, or what stands in for them, of all layers."""
    total = np.zeros(batch.ranks)
    for mixer, layers in enumerate(np.bincount(plan.model.mixer_of).tolist()):
        if layers:
            total += layers * np.broadcast_to(np.asarray(plan.ops.with_mixer(mixer).core(batch).total), batch.ranks)
    return total
