"""Chores: what a router computes beside the rows that it sends, as shapes; `step` puts the prices on them.

Each router says which kernels its layer runs on each rank, as its published code does (one entry a kernel: where a
batch is small, starting them is what deciding costs). A gate is a GEMM over hidden states and one kernel over its
scores (read and written once, fp32: softmax or sigmoid, and top-k). Tokens in places need their position at each expert
(for each choice a one-hot mask, its running sum along the tokens, and the look into it) and a layout transform of their
rows, before the dispatch and after the combine; without places the dispatch kernels do that themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import Ints, RouterInput

SCORE_BYTES: Final = 4  # fp32, in every stack looked at
ROW_BYTES: Final = 2  # of a number of a hidden state, bf16
SORT_PASSES: Final = 16  # a radix sort of 32-bit keys with ids: four digits, each reads and writes key and id
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chores:
    """Of each rank r of R: gemms (m int64[R], n, k), moved int64[R] bytes of each kernel that only moves bytes, and
    sets int64[R], how often the weights of one expert are read or written. held: numbers that every rank keeps for the
    layer's decision; buffers int64[R] bytes of rows in their places, on the way there, and as much on the way back.
    """

    gemms: tuple[tuple[Counts, int, int], ...] = ()
    moved: tuple[Counts, ...] = ()
    sets: tuple[Counts, ...] = ()
    held: int = 0
    buffers: tuple[Counts, ...] = ()

    def __add__(self, other: Chores) -> Chores:
        return Chores(
            self.gemms + other.gemms, self.moved + other.moved, self.sets + other.sets, self.held + other.held,
            self.buffers + other.buffers,
        )  # fmt: skip


def tokens(given: RouterInput) -> Counts:
    """int64[R]: tokens of each rank."""
    return np.bincount(given.rank, minlength=len(given.rank_node)).astype(np.int64)


def gate(given: RouterInput, width: int | None = None) -> Chores:
    """A linear gate of `width` outputs (default: the experts) and its scores."""
    wide = given.experts if width is None else width
    return gemm(given, wide, given.hidden) + passes(given, 2, wide)


def gemm(given: RouterInput, n: int, k: int) -> Chores:
    """One row a token, from k to n numbers, by a matrix that the router keeps."""
    return Chores(gemms=((tokens(given), n, k),), held=n * k)


def mix(given: RouterInput, n: int, k: int) -> Chores:
    """One row a token, from k to n numbers, by a matrix that the batch itself makes."""
    return Chores(gemms=((tokens(given), n, k),))


def passes(given: RouterInput, number: int, width: int | None = None) -> Chores:
    """A kernel that reads or writes scores of all tokens `number` times."""
    wide = given.experts if width is None else width
    return Chores(moved=(tokens(given) * (number * SCORE_BYTES * wide),))


def sort(given: RouterInput, width: int | None = None) -> Chores:
    """The scores of all tokens put in order, along either axis."""
    return passes(given, SORT_PASSES, width)


def select_columns(given: RouterInput, choices: int) -> Chores:
    """The best of each expert's column, `choices` a token: scores transposed, a radix selection (a column is read for
    each of four digits), and what was selected, keys and ids, put in order where it lies. Their places are then known.
    """
    return passes(given, 2) + passes(given, 4) + passes(given, 4, choices)


def hidden_passes(given: RouterInput, number: int) -> Chores:
    """A kernel that reads or writes hidden states of all tokens `number` times."""
    return Chores(moved=(tokens(given) * (number * ROW_BYTES * given.hidden),))


def layout(given: RouterInput, found: Assignment) -> Chores:
    """Rows read and written into their places before the dispatch, and back after the combine: two kernels, each with
    a buffer of its own (GShard's dispatched inputs and expert outputs, [experts, places, hidden] of a group).
    """
    buffer = rows_sent(given, found) * (ROW_BYTES * given.hidden)
    return Chores(moved=(2 * buffer, 2 * buffer), buffers=(buffer,))


def rows_sent(given: RouterInput, found: Assignment) -> Counts:
    """int64[R]: rows that tokens of each rank make, padding included."""
    return of_rank(given, found.rank[found.token[found.moves]])


def positions(given: RouterInput, choices: int) -> Chores:
    """For each choice three kernels: a one-hot mask is written, summed along the tokens (read and written), and read:
    the position in the buffer. Source: GShard, algorithm 1; DeepSpeed's and fairseq's gates as code read.
    """
    return Chores(moved=(*passes(given, 1).moved, *passes(given, 2).moved, *passes(given, 1).moved) * choices)


def buffered(given: RouterInput, found: Assignment) -> Chores:
    """What limited places cost beside the gate: positions of each choice and the layout of the rows."""
    return positions(given, int(found.choice.max(initial=0)) + 1) + layout(given, found)


def mixed(given: RouterInput, found: Assignment, width: int | None = None) -> Chores:
    """An expert's output y of row x becomes s y + (1 - s) x, s the sigmoid of their match: an inner product of each row
    with the expert's vector (of `width` numbers: projected and normalised first), and a kernel that reads both and
    writes one. Priced where the rows come from. Source: BASE's layer as code read (fairseq); StableMoE's and X-MoE's
    follow it, X-MoE's with its projection.
    """
    rows = rows_sent(given, found)
    once = rows * (ROW_BYTES * given.hidden)
    if width is None:
        return Chores(moved=(once, 3 * once))
    match = rows * (SCORE_BYTES * width)
    return Chores(gemms=((rows, width, given.hidden),), moved=(match, 2 * match, match, 3 * once))


def of_rank(given: RouterInput, rank: Ints) -> Counts:
    """int64[n] ranks -> int64[R]: how many are on each."""
    return np.bincount(rank, minlength=len(given.rank_node)).astype(np.int64)
