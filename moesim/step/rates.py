"""Rates: what no routing decides of a step, as arrays that compiled code adds up, rank by rank, to the tick.

Of plans whose steps are sums (`Refill.sums`), whose ranks attend alone, all in the same way. The arrays hold what a
Refill was asked for before; who finds that something is missing asks the Refill, and then `RateBook.take`s what it has
learned. tests/serving/test_compiled_loop.py holds what they add up to equal to `Pace.ps`, to the tick.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import inner, njit
from moesim.errors import BrokenInvariant
from moesim.models import Attention
from moesim.step.batch import Batch, Phase
from moesim.step.cores import BLOCK_BITS, CONTEXT_BITS, CorePrices
from moesim.step.fill import Refill
from moesim.step.fixed import ATTENTION, CONTEXTS, HEAD
from moesim.step.work import Floats
from moesim.units import PICOSECONDS_PER_SECOND

Int64s = npt.NDArray[np.int64]
UNKNOWN = -1
FEWEST = 1 << 10
QUERY_BITS = 22
PS = float(PICOSECONDS_PER_SECOND)


class Rates(NamedTuple):
    """fixed int64[tokens], head int64[emitted] ps: of all tasks of a rank with so many tokens, attention's aside;
    around float64[2, families, tokens] s: what stands before and after attention's core in a layer; core: the family of
    the core; stretch: how much longer attention is than on all SMs; layers that have it; places int32[rows, blocks],
    cells float64[cells, contexts, 2]: s of one decoded row among so many, and whether that is outside of what was
    measured; keys int64[room] (0: free), prompts float64[room, 2]: the same of a chunk of a prompt. UNKNOWN: not asked.
    """

    fixed: Int64s
    head: Int64s
    around: Floats
    core: int
    stretch: float
    layers: int
    places: npt.NDArray[np.int32]
    cells: Floats
    keys: Int64s
    prompts: Floats


def unrated(refill: Refill) -> str:
    """Why there are no Rates of a plan's steps, "" where there are."""
    names = [name for name, *_ in refill.structure.priced]
    reasons = {
        "steps are no sums": not refill.sums,
        "several ranks attend together": refill.plan.ops.spread.tensor > 1,
        "layers attend in different ways": names.count(ATTENTION) != 1 or any(name in CONTEXTS for name in names),
        "no attention": not all(isinstance(mixer, Attention) for mixer in refill.plan.model.mixers),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class RateBook:
    """What a Refill has been asked for, as Rates."""

    def __init__(self, refill: Refill) -> None:
        self._refill, self._tasks, self._prompts = refill, [], 0
        for (name, _, stretch, mixer), tasks in refill.structure.priced.items():
            if name == ATTENTION:
                self._attention = (stretch, mixer, len(tasks))
            else:
                self._tasks.append((name, stretch, mixer, len(tasks)))
        self._families: list[str] = []
        stretch, _, layers = self._attention
        none, unknown = np.zeros(0), np.full(1, UNKNOWN, dtype=np.int64)
        self.rates = Rates(
            unknown, unknown, none.reshape(2, 0, 0), UNKNOWN, stretch, layers, np.zeros((0, 0), dtype=np.int32),
            none.reshape(0, 0, 2), np.zeros(FEWEST, dtype=np.int64), np.zeros((FEWEST, 2)),
        )  # fmt: skip

    @property
    def _cores(self) -> CorePrices:
        return self._refill.fixed.cores(self._attention[1])

    @property
    def family(self) -> str:
        """The error family of attention's cores."""
        return self._cores.family

    def count(self, asked: int, outside: int) -> None:
        """Of so many shapes of attention's core compiled code made use, so many outside of what was measured."""
        if asked:
            self._cores.count(asked, outside)

    def take(self, batch: Batch) -> None:
        """What the Refill knows, as it has been asked for a batch."""
        rates, cores = self.rates, self._cores
        for tokens in np.unique(batch.tokens_of_rank).tolist():
            if tokens >= len(rates.fixed) or rates.fixed[tokens] == UNKNOWN:
                self._take_tokens(tokens)
        for emits in np.unique(batch.head_rows).tolist():
            if emits >= len(rates.head) or rates.head[emits] == UNKNOWN:
                self._take_emitted(emits)
        self.rates = self.rates._replace(places=cores.index, cells=cores.cells)
        self.take_prompts(_chunks(batch))

    def _take_tokens(self, tokens: int) -> None:
        """A number of tokens and its neighbours, as far as they are known."""
        mixer = self._attention[1]
        near = self._refill.fixed.known(tokens)
        near = near[near > 0]
        part = _of_tokens(near)
        ps = sum((tasks * self._refill.fixed.ps(name, part, long, of) for name, long, of, tasks in self._tasks
                  if name != HEAD), start=np.zeros(len(near), dtype=np.int64))  # fmt: skip
        before, after = self._refill.fixed.around(part, mixer)
        families = [*dict.fromkeys((*before.seconds, self.family, *after.seconds))]
        if families != (self._families or families):
            raise BrokenInvariant(f"attention's error families {families} were {self._families} before")
        self._families = families
        fixed = _wider(self.rates.fixed, int(near.max()), UNKNOWN)
        around = np.zeros((2, len(self._families), len(fixed)))
        had = self.rates.around.shape
        around[:, : had[1], : had[2]] = self.rates.around
        fixed[near] = ps
        for side, work in enumerate((before, after)):
            for family, seconds in work.seconds.items():
                around[side, self._families.index(family), near] = seconds
        self.rates = self.rates._replace(fixed=fixed, around=around, core=self._families.index(self.family))

    def _take_emitted(self, emits: int) -> None:
        part = _of_emitted(emits)
        ps = sum(tasks * int(self._refill.fixed.ps(name, part, long, of)[0]) for name, long, of, tasks in self._tasks
                 if name == HEAD)  # fmt: skip
        head = _wider(self.rates.head, emits, UNKNOWN)
        head[emits] = ps
        self.rates = self.rates._replace(head=head)

    def take_prompts(self, shapes: Int64s) -> None:
        """Chunks int64[n, 3]: how many a rank has, tokens, tokens before them."""
        number, query, context = shapes.T
        small = (number < 1 << 15) & (query < 1 << QUERY_BITS) & (context < 1 << CONTEXT_BITS)
        shapes = shapes[small]
        key = ((shapes[:, 0] << QUERY_BITS | shapes[:, 1]) << CONTEXT_BITS) | shapes[:, 2]
        key, first = np.unique(key, return_index=True)
        new = unknown(self.rates.keys, key)
        if not new.any():
            return
        seconds = self._cores.prompts(shapes[first[new]])
        keys, prompts = self.rates.keys, self.rates.prompts
        while 2 * (self._prompts + len(seconds)) > len(keys):
            keys, prompts = _rehashed(keys, prompts)
        put(keys, prompts, key[new], seconds)
        self._prompts += len(seconds)
        self.rates = self.rates._replace(keys=keys, prompts=prompts)


def _chunks(batch: Batch) -> Int64s:
    """int64[n, 3]: of prompts, how many their ranks have, tokens, tokens before them."""
    prompts = batch.phase == Phase.PREFILL
    number = np.bincount(batch.rank[prompts], minlength=batch.ranks)
    return np.stack((number[batch.rank[prompts]], batch.query[prompts], batch.context[prompts]), axis=1)


def _of_tokens(counts: Int64s) -> Batch:
    """A rank for each number of tokens."""
    ranks = np.arange(len(counts))
    return Batch.of(len(counts), ranks, ranks, counts, 0, Phase.PREFILL)


def _of_emitted(emits: int) -> Batch:
    """A rank on which so many tokens go through the head."""
    return Batch.of(1, 0, np.arange(max(emits, 1)), 1, 0, Phase.DECODE, emits > 0)


def _wider(table: Int64s, number: int, empty: int) -> Int64s:
    """A copy that has a place for a number."""
    lacking = number + 1 - len(table)
    return np.concatenate((table, np.full(max(lacking, 0) + (number if lacking > 0 else 0), empty, dtype=np.int64)))


def _rehashed(keys: Int64s, prompts: Floats) -> tuple[Int64s, Floats]:
    """The same in twice the room."""
    wider, found = np.zeros(2 * len(keys), dtype=np.int64), np.zeros((2 * len(keys), 2))
    put(wider, found, keys[keys > 0], prompts[keys > 0])
    return wider, found


@njit
def slot(keys: Any, key: Any) -> Any:
    """Where a key stands; -1 where it does not."""
    mask = keys.shape[0] - 1
    place = ((key * 0x9E3779B97F4A7C1) >> 24) & mask
    while keys[place] != 0:
        if keys[place] == key:
            return place
        place = (place + 1) & mask
    return np.int64(-1)


@njit
def unknown(keys: Any, asked: Any) -> Any:
    """bool[n]: which of int64[n] keys do not stand there."""
    found = np.empty(asked.shape[0], np.bool_)
    for number in range(asked.shape[0]):
        found[number] = slot(keys, asked[number]) < 0
    return found


@njit
def free(keys: Any, key: Any) -> Any:
    """Where a key that is not there would stand."""
    mask = keys.shape[0] - 1
    place = ((key * 0x9E3779B97F4A7C1) >> 24) & mask
    while keys[place] != 0:
        place = (place + 1) & mask
    return place


@njit
def put(keys: Any, values: Any, new: Any, given: Any) -> None:
    """Keys int64[n] that are not there, with their values float64[n, 2]."""
    for number in range(new.shape[0]):
        place = free(keys, new[number])
        keys[place] = new[number]
        values[place] = given[number]


@inner
def decoded(rates: Any, contexts: Any, many: Any, ahead: Any, counted: Any) -> Any:
    """Seconds of attention's core of a rank's decoded rows, the first `many` of contexts int64[n], ascending, each
    `ahead` tokens longer; UNKNOWN where one was not asked for. counted int64[2]: different rows, and those outside of
    what was measured, are added. As `cores.summed`.
    """
    total, at = 0.0, 0
    if many >= rates.places.shape[0]:
        return float(UNKNOWN)
    while at < many:
        first = at
        while at < many and contexts[at] == contexts[first]:
            at += 1
        context = contexts[first] + ahead
        block = context >> BLOCK_BITS
        cell = rates.places[many, block] if block < rates.places.shape[1] else -1
        if cell < 0:
            return float(UNKNOWN)
        place = context & ((1 << BLOCK_BITS) - 1)
        total += rates.cells[cell, place, 0] * ((at - first) / many)
        counted[0] += 1
        counted[1] += rates.cells[cell, place, 1] > 0
    return total


@inner
def prefilled(rates: Any, chunks: Any, many: Any, counted: Any) -> Any:
    """The same of its chunks of prompts, the first `many` of chunks int64[n], ascending: tokens << CONTEXT_BITS | those
    before them. As `CorePrices._prefilled`.
    """
    total, at = 0.0, 0
    while at < many:
        first = at
        while at < many and chunks[at] == chunks[first]:
            at += 1
        place = slot(rates.keys, np.int64(many) << (QUERY_BITS + CONTEXT_BITS) | chunks[first])
        if place < 0:
            return float(UNKNOWN)
        total += rates.prompts[place, 0] * ((at - first) / many)
        counted[0] += 1
        counted[1] += rates.prompts[place, 1] > 0
    return total


@inner
def of_rank(rates: Any, tokens: Any, emits: Any, core: Any) -> Any:
    """ps of all tasks of a rank with so many tokens, whose attention's core takes `core` seconds; UNKNOWN where it was
    not asked for. As `Refill.unrouted`.
    """
    if tokens >= rates.fixed.shape[0] or emits >= rates.head.shape[0]:
        return np.int64(UNKNOWN)
    if rates.fixed[tokens] < 0 or rates.head[emits] < 0:
        return np.int64(UNKNOWN)
    total = 0.0
    for family in range(rates.around.shape[1]):
        before, after = rates.around[0, family, tokens], rates.around[1, family, tokens]
        middle = before + core if family == rates.core else before
        total += (middle + after) * rates.stretch
    return rates.fixed[tokens] + rates.head[emits] + np.int64(np.rint(total * PS)) * rates.layers
