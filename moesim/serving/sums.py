"""What a step takes, added up from tables by compiled code: one function for a batch and for whole closed loops.

Tables are over KNOTS, four an octave. All that depends on the order of rows is a sum of integers, so that batches of
the same rows take the same time to the tick in whatever order they stand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from moesim.compiled import inner, njit
from moesim.serving.requests import Ints
from moesim.step.work import Floats

GRID = 32  # tokens of context between priced ones
OCTAVE = 4  # priced numbers of tokens and rows in an octave
MOST_OCTAVES = 23  # 2 ** 22 tokens are the most of a step
KNOTS: Ints = np.unique(np.rint(2.0 ** (np.arange(MOST_OCTAVES * OCTAVE + 1) / OCTAVE)).astype(np.int64))
NOTHING, REST, OWN, HEADS, CORES, PROMPTS = range(6)  # what a sum may lack
FEWEST_CELLS = 64
UNKNOWN = -1


class Tables(NamedTuple):
    """ps; rest float64[K]: of so many tokens of all ranks, what they do together; own, heads float64[K]: of so many
    tokens of a scheduler, what its ranks do by themselves beside attention's cores; cores int64[K, cells]: of one
    decoded row among so many, after 0, GRID, 2 GRID ... tokens; prompts float64[K, K]: of one prompt among so many, of
    so many tokens. UNKNOWN: not priced yet.
    """

    rest: Floats
    own: Floats
    heads: Floats
    cores: Ints
    prompts: Floats

    @classmethod
    def empty(cls, *, alone: bool) -> Tables:
        """Nothing is priced; alone: one scheduler, whose ranks do all together."""
        many = len(KNOTS)
        rest, heads, prompts = (np.full(shape, float(UNKNOWN)) for shape in (many, many, (many, many)))
        own = np.full(many, 0.0 if alone else float(UNKNOWN))
        return cls(rest, own, heads, np.full((many, FEWEST_CELLS), UNKNOWN, dtype=np.int64), prompts)

    def wider(self, context: int) -> Tables:
        """With cells for so many tokens of context; what was priced of cores is forgotten where they have to grow."""
        cells = context // GRID + 2
        if cells <= self.cores.shape[1]:
            return self
        return self._replace(cores=np.full((len(KNOTS), cells + cells // 2), UNKNOWN, dtype=np.int64))


@inner
def spot(number: Any) -> Any:
    """Index of the last of KNOTS that is not above `number`, 1 or more, and how far it is to the next."""
    low, high = 0, KNOTS.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if KNOTS[middle] <= number:
            low = middle
        else:
            high = middle
    return low, (number - KNOTS[low]) / (KNOTS[high] - KNOTS[low])


@inner
def lacks(missing: Any, kind: Any, row: Any, column: Any) -> Any:
    """Note what is missing. 0, as whatever is added up to is of no use."""
    missing[0], missing[1], missing[2] = kind, row, column
    return 0


@inner
def along(table: Any, number: Any, kind: Any, missing: Any) -> Any:
    """table float64[K] at `number`."""
    low, share = spot(number)
    for index in range(low, low + 2 if share > 0 else low + 1):
        if table[index] < 0:
            lacks(missing, kind, index, 0)
    return table[low] if share == 0 else table[low] * (1 - share) + table[low + 1] * share


@inner
def decoded(cores: Any, rows: Any, many: Any, missing: Any) -> Any:
    """ps of the cores of the first `many` of rows int64[n], contexts."""
    low, share = spot(many)
    total = 0.0
    for index in range(low, low + 2 if share > 0 else low + 1):
        if cores[index, 0] < 0:
            return float(lacks(missing, CORES, index, 0))
        part = 0
        for number in range(many):
            cell = rows[number] // GRID
            below = cores[index, cell]
            part += below + (cores[index, cell + 1] - below) * (rows[number] % GRID) // GRID
        total += part * ((1 - share) if index == low else share)
    return total


@inner
def prompt(prompts: Any, rows: Any, tokens: Any, missing: Any) -> Any:
    """ps of the core of one prompt of so many tokens among `rows`."""
    low, share = spot(rows)
    first, part = spot(tokens)
    total = 0.0
    for row in range(low, low + 2 if share > 0 else low + 1):
        for column in range(first, first + 2 if part > 0 else first + 1):
            if prompts[row, column] < 0:
                lacks(missing, PROMPTS, row, column)
            weight = ((1 - share) if row == low else share) * ((1 - part) if column == first else part)
            total += prompts[row, column] * weight
    return total


@inner
def chunk(prompts: Any, rows: Any, new: Any, before: Any, missing: Any) -> Any:
    """ps of the core of a chunk, rounded. After c tokens it attends as the prompt up to its end does, less the prompt
    of c; that starts a kernel, too.
    """
    total = prompt(prompts, rows, before + new, missing)
    if before:
        total += prompt(prompts, rows, 1, missing) - prompt(prompts, rows, before, missing)
    return round(total)


@inner
def of_rank(own: Any, heads: Any, tokens: Any, emits: Any, core: Any, missing: Any) -> Any:
    """ps that a scheduler's ranks take by themselves, with so many tokens, whose cores take `core` ps."""
    head = along(heads, emits, HEADS, missing) if emits else 0.0
    return core + along(own, tokens, OWN, missing) + head


@inner
def together(rest: Any, tokens: Any, slowest: Any, missing: Any) -> Any:
    """Ticks of a step of so many tokens, the slowest of whose ranks takes so many ps by itself."""
    return round(slowest + along(rest, tokens, REST, missing))


@njit
def ticks_of(rest: Any, own: Any, heads: Any, cores: Any, prompts: Any, rows: Any, new: Any, before: Any, emits: Any,
             missing: Any) -> Any:  # fmt: skip
    """Of a batch, scheduler by scheduler in tuples: contexts of decoded rows int64[n], new tokens of chunks int64[m]
    and those before them; emits: tokens that go through the head. Ticks, of no use where missing int64[3] says then
    which price there is not.
    """
    slowest, total = 0.0, 0
    for r in range(len(rows)):
        core = decoded(cores, rows[r], rows[r].shape[0], missing) if rows[r].shape[0] else 0.0
        tokens = rows[r].shape[0]
        for number in range(new[r].shape[0]):
            core += chunk(prompts, new[r].shape[0], new[r][number], before[r][number], missing)
            tokens += new[r][number]
        if tokens:
            slowest = max(slowest, of_rank(own, heads, tokens, emits[r], core, missing))
        total += tokens
    return together(rest, total, slowest, missing)
