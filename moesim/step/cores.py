"""What attention's cores take on each tensor-parallel group, row by row, for clocks that are asked often.

The same sums in the same order as `LayerOps.core`, from tables of what one row among n like itself costs: decoded rows
in a compiled pass over blocks of contexts, chunks of prompts one by one, as a batch has few of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.costs.tables import Tables
from moesim.models import Attention
from moesim.step.batch import Alike, Batch, Phase
from moesim.step.ops import LayerOps
from moesim.step.work import CostLog, Floats, Work

Int64s = npt.NDArray[np.int64]
BLOCK_BITS, CONTEXT_BITS = 6, 25  # neighbours priced together; contexts are below 2 ** 25
MOST_CELLS = 1 << 24  # of numbers of rows by blocks of contexts, beyond which rows are priced as any others
MOST_PROMPTS = 1 << 16  # kinds of chunks that are kept


@dataclass(frozen=True)
class Ahead:
    """Of the next n steps: seconds float64[n, ranks] of an error family; how many kinds of rows each asks for, and how
    many of them outside of what was measured int64[n]; log: where those are counted that were made.
    """

    family: str
    seconds: Floats
    kinds: int
    outside: Int64s
    log: CostLog

    def count(self, steps: int) -> None:
        """The first so many were made."""
        self.log.count(self.family, steps * self.kinds, int(self.outside[:steps].sum()))


class CorePrices:
    """Of one mixer of a plan's layers."""

    def __init__(self, ops: LayerOps) -> None:
        self._ops = ops
        self.index = np.full((1, 1), -1, dtype=np.int32)
        self.cells = np.zeros((0, 1 << BLOCK_BITS, 2))  # seconds of one row, and whether they were measured
        self._prompts: dict[tuple[int, int, int], tuple[float, bool]] = {}
        self.family = ""

    def of(self, batch: Batch) -> Work:
        """Seconds float64[ranks]."""
        ways = self._ops.spread.tensor
        if self not in batch.memo:
            batch.memo[self] = _phases(batch, ways)
        decodes, prompts, group, number = batch.memo[self]
        longest = int(batch.context.max(initial=0))
        priced_alone = batch.training or not isinstance(self._ops.mixer, Attention)
        if priced_alone or self._too_many(int(number.max(initial=0)), longest):
            return self._ops.core_seconds(batch)
        parts = []
        if len(group):
            parts.append(self._decoded(group, batch.context[decodes], number))
        if prompts is not None:
            parts.append(self._prefilled(batch, prompts, ways))
        every = (Work({self.family: np.repeat(seconds, ways)}) for seconds in parts)
        return sum(every, start=Work())

    def _decoded(self, group: Int64s, context: Int64s, number: Int64s) -> Floats:
        """Seconds float64[groups] of decoded rows, of which each group has number int64[groups]."""
        rows = np.sort(group << CONTEXT_BITS | context)
        self._reach(int(number.max()), int(context.max()) >> BLOCK_BITS)
        missing = np.empty((len(rows), 2), dtype=np.int64)
        total = np.zeros(len(number))
        lacking, kinds, outside = summed(rows, number, self.index, self.cells, total, missing)
        if lacking:
            self._learn(np.unique(missing[:lacking], axis=0))
            total[:] = 0.0
            _, kinds, outside = summed(rows, number, self.index, self.cells, total, missing)
        self._ops.log.count(self.family, int(kinds), int(outside))
        return total

    def ahead(self, batch: Batch, steps: int) -> Ahead | None:
        """Of a batch without prompts and of those after it, whose decoded rows are all one token longer than the one
        before, at most `steps`: as far as prices are known. None where rows are not priced one by one.
        """
        ways = self._ops.spread.tensor
        if self not in batch.memo:
            batch.memo[self] = _phases(batch, ways)
        decodes, prompts, group, number = batch.memo[self]
        if prompts is not None or not len(group) or not isinstance(self._ops.mixer, Attention):
            return None
        if self._too_many(int(number.max()), int(batch.context.max()) + steps):
            return None
        rows = np.sort(group << CONTEXT_BITS | batch.context[decodes])
        total, outside = np.zeros((steps, len(number))), np.zeros(steps, dtype=np.int64)
        if int(number.max()) >= len(self.index):
            return None
        known, kinds = summed_ahead(rows, number, self.index, self.cells, total, outside)
        return Ahead(self.family, np.repeat(total[:known], ways, axis=1), int(kinds), outside[:known], self._ops.log)

    def _too_many(self, number: int, longest: int) -> bool:
        """For a table: the index holds the most of either that was asked for, and doubles."""
        rows, blocks = self.index.shape
        cells = max(rows, 2 * number) * max(blocks, 2 * (longest >> BLOCK_BITS) + 1)
        return cells > MOST_CELLS or longest >> CONTEXT_BITS > 0

    def _reach(self, most: int, block: int) -> None:
        """The index has a cell for so many rows after so many blocks."""
        rows, blocks = self.index.shape
        if most < rows and block < blocks:
            return
        wider = np.full((max(rows, 2 * most), max(blocks, 2 * block + 1)), -1, dtype=np.int32)
        wider[:rows, :blocks] = self.index
        self.index = wider

    def _learn(self, cells: Int64s) -> None:
        """Price blocks of contexts int64[n, 2] (rows, block)."""
        size = 1 << BLOCK_BITS
        context = (cells[:, 1, None] * size + np.arange(size)).ravel()
        priced = self._priced("decode", np.repeat(cells[:, 0], size), np.ones_like(context), context)
        self.index[cells[:, 0], cells[:, 1]] = len(self.cells) + np.arange(len(cells))
        self.cells = np.concatenate((self.cells, priced.reshape(-1, size, 2)))

    def _priced(self, phase: str, number: Int64s, query: Int64s, context: Int64s) -> Floats:
        """float64[n, 2]: seconds of `number` rows alike, and whether they lie outside of what was measured."""
        none = np.zeros_like(number)
        (found,) = self._ops.mixing(phase, Alike(none, query, context, number, number))
        self.family = found.family
        self._ops.log.learn(found)
        return np.stack((found.seconds, found.outside.astype(np.float64)), axis=1)

    def _prefilled(self, batch: Batch, prompts: npt.NDArray[np.bool_], ways: int) -> Floats:
        """Seconds float64[groups] of chunks of prompts."""
        group = (batch.rank[prompts] // ways).tolist()
        kinds = Counter(zip(group, batch.query[prompts].tolist(), batch.context[prompts].tolist(), strict=True))
        number = Counter(group)
        asked = sorted((group, query, context) for group, query, context in kinds)
        keys = [(number[group], query, context) for group, query, context in asked]
        self._learn_prompts(keys)
        total = np.zeros(batch.ranks // ways)
        for kind, key in zip(asked, keys, strict=True):
            total[kind[0]] += self._prompts[key][0] * (kinds[kind] / key[0])
        self._ops.log.count(self.family, len(keys), sum(self._prompts[key][1] for key in keys))
        return total

    @cached_property
    def _bare(self) -> CorePrices:
        """The same over costs that keep nothing: of prompts, of which there are many, but few twice."""
        costs = self._ops.costs
        return CorePrices(replace(self._ops, costs=costs.asked if isinstance(costs, Tables) else costs))

    def count(self, kinds: int, outside: int) -> None:
        """So many kinds of rows were asked for, so many of them outside of what was measured."""
        self._ops.log.count(self.family, kinds, outside)

    def prompts(self, shapes: Int64s) -> Floats:
        """float64[n, 2]: seconds of chunks int64[n, 3] (how many a group has, tokens, tokens before them), and whether
        they lie outside of what was measured. None is kept that was not.
        """
        keys = [(number, query, context) for number, query, context in shapes.tolist()]
        if all(key in self._prompts for key in keys):
            return np.array([self._prompts[key] for key in keys], dtype=np.float64).reshape(-1, 2)
        asked = np.resize(shapes, (max(len(shapes), 2), 3))  # as Tables: never one alone
        return self._bare._priced("prefill", *asked.T)[: len(shapes)]

    def _learn_prompts(self, keys: Sequence[tuple[int, int, int]]) -> None:
        """Price those that are new."""
        if new := [key for key in dict.fromkeys(keys) if key not in self._prompts]:
            if len(self._prompts) + len(new) > MOST_PROMPTS:
                self._prompts, new = {}, list(dict.fromkeys(keys))
            columns = np.array(new if len(new) > 1 else new * 2, dtype=np.int64).T  # as Tables: never one alone
            found = self._priced("prefill", *columns).tolist()
            self._prompts.update((key, (one[0], one[1] > 0)) for key, one in zip(new, found, strict=False))


def _phases(batch: Batch, ways: int) -> tuple[Any, Any, Int64s, Int64s]:
    """Which rows are decoded, which are of prompts (None where none is); groups of the first, and how many each has."""
    decodes, prompts = batch.phase == Phase.DECODE, batch.phase == Phase.PREFILL
    group = batch.rank[decodes] // ways
    number = np.bincount(group, minlength=batch.ranks // ways)
    return decodes, prompts if prompts.any() else None, group, number


@njit
def summed(rows: Any, number: Any, index: Any, kept: Any, total: Any, missing: Any) -> Any:
    """rows int64[S] ascending (group, context) -> total float64[groups] s; (how many cells are missing, different rows,
    of them outside of what was measured). missing int64[S, 2]: the cells.
    """
    at, lacking, kinds, outside = 0, 0, 0, 0
    while at < rows.shape[0]:
        first = at
        while at < rows.shape[0] and rows[at] == rows[first]:
            at += 1
        group, context = rows[first] >> CONTEXT_BITS, rows[first] & ((1 << CONTEXT_BITS) - 1)
        many, kinds = number[group], kinds + 1
        cell = index[many, context >> BLOCK_BITS]
        if cell < 0:
            missing[lacking, 0], missing[lacking, 1] = many, context >> BLOCK_BITS
            lacking += 1
        else:
            found = kept[cell, context & ((1 << BLOCK_BITS) - 1)]
            total[group] += found[0] * ((at - first) / many)
            outside += found[1] > 0
    return lacking, kinds, outside


@njit
def summed_ahead(rows: Any, number: Any, index: Any, kept: Any, total: Any, outside: Any) -> Any:
    """`summed` for steps, in each of which all rows are a token longer: total float64[n, groups] s, outside int64[n] ->
    (steps until a cell is missing, different rows of each).
    """
    different = 0
    for step in range(total.shape[0]):
        at, kinds = 0, 0
        while at < rows.shape[0]:
            first = at
            while at < rows.shape[0] and rows[at] == rows[first]:
                at += 1
            group, context = rows[first] >> CONTEXT_BITS, (rows[first] & ((1 << CONTEXT_BITS) - 1)) + step
            many, block, kinds = number[group], context >> BLOCK_BITS, kinds + 1
            cell = index[many, block] if block < index.shape[1] else -1
            if cell < 0:
                return step, different
            found = kept[cell, context & ((1 << BLOCK_BITS) - 1)]
            total[step, group] += found[0] * ((at - first) / many)
            outside[step] += found[1] > 0
        different = kinds
    return total.shape[0], different
