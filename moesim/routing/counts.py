"""Counts: which experts any stretch of a recorded request takes, in all layers at once, for a few differences.

Prefix sums stand at every block of a request's tokens; a stretch is the difference of the two nearest sums, less or
plus the tokens between them and its own ends. A short stretch, such as a decoded token, is counted as it stands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.routing.sources.replay import Recording

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
SHORTEST_BLOCK = 32
MOST_TOKENS = (1 << 16) - 1  # of which uint16 counts any choice
SELDOM = 2  # uses of a request's long stretches that cost about as much, token by token, as its sums


class Counts:
    """Of one Recording. Sums over a request's blocks are made when it was asked for a few long stretches."""

    def __init__(self, recording: Recording, num_experts: int) -> None:
        self.recording, self.num_experts = recording, num_experts
        _, self.layers, top_k = recording.shape
        self.block = block_of(num_experts, top_k)
        rows = -(-recording.length // self.block) + 1
        self._first = np.cumsum(rows) - rows  # of each request among the sums
        self._summed = np.zeros(len(rows), dtype=np.bool_)
        self._asked = np.zeros(len(rows), dtype=np.int64)  # long stretches of each request so far
        self._sums: Int32s = np.zeros((int(rows.sum()), self.layers, num_experts + 1), dtype=np.int32)

    def stretches(self, which: Int64s, first: Int64s, tokens: Int64s, group: Int64s, groups: int) -> Int32s:
        """S stretches: recorded request, first position, tokens, group, int64[S] -> int32[groups, layers, experts].

        What a recorded request has is repeated where a stretch goes on beyond its end, as in Replay. A choice that is
        none is counted nowhere.
        """
        short = tokens <= self.block
        found = np.zeros((groups, self.layers, self.num_experts + 1), dtype=np.int32)
        if not short.all():
            short = self._add_long(which, first, tokens, group, short, found)
            which, first, tokens, group = (column[short] for column in (which, first, tokens, group))
        rows, group = self._rows(which, first, tokens, group)
        add_tokens(self.recording.table(rows), rows, group, found)
        return found[:, :, : self.num_experts]

    def load_and_pairs(
        self, which: Int64s, first: Int64s, tokens: Int64s, group: Int64s, groups: int, owner: Int32s, ranks: int
    ) -> tuple[Int64s, Int64s]:
        """`load_and_pairs` of `stretches`, whose groups ascend; short ones without the counts of all groups at once."""
        if np.any(tokens > self.block) or int(tokens.sum()) > MOST_TOKENS:
            return load_and_pairs(self.stretches(which, first, tokens, group, groups), owner, ranks)
        rows, group = self._rows(which, first, tokens, group)
        load = np.zeros((self.layers, self.num_experts), dtype=np.int64)
        pairs = np.zeros((self.layers, groups, ranks), dtype=np.int64)
        begin = np.searchsorted(group, np.arange(groups + 1))
        own = np.zeros((1, self.layers, self.num_experts + 1), dtype=np.uint16)
        group_after_group(self.recording.table(rows), rows, np.zeros_like(rows), begin, owner, own, load, pairs)
        return load, pairs

    def _rows(self, which: Int64s, first: Int64s, tokens: Int64s, group: Int64s) -> tuple[Int64s, Int64s]:
        """Of each token of stretches of recorded requests, its row of the table and its group."""
        if not np.all(tokens == 1):
            which, group, first = np.repeat(which, tokens), np.repeat(group, tokens), _positions(first, tokens)
        return self.recording.rows_of(which, first), group

    def _add_long(
        self, which: Int64s, first: Int64s, tokens: Int64s, group: Int64s, short: npt.NDArray[np.bool_], found: Int32s
    ) -> npt.NDArray[np.bool_]:
        """Add the long stretches of requests that are asked for often -> bool[S]: the others."""
        np.add.at(self._asked, which[~short], 1)
        seldom = short | (self._asked[which] <= SELDOM)
        long = np.flatnonzero(~seldom)
        self._sum_up(which[long])
        add_stretches(
            self.recording.table(), self.recording.start, self.recording.length, self._sums, self._first, self.block,
            which[long], first[long], tokens[long], group[long], found,
        )  # fmt: skip
        return seldom

    def _sum_up(self, requests: Int64s) -> None:
        """Make the sums of these recorded requests, where they are missing."""
        for request in np.unique(requests[~self._summed[requests]]).tolist():
            start, at = int(self.recording.start[request]), int(self._first[request])
            rows = np.arange(start, start + int(self.recording.length[request]))
            block_sums(self.recording.table(rows)[rows[0] : rows[-1] + 1], self.block, self._sums[at:])
            self._summed[request] = True


def block_of(num_experts: int, top_k: int) -> int:
    """Tokens of a block: so many that its sums (int32) take no more memory than the choices (uint16) of its tokens."""
    return max(SHORTEST_BLOCK, 1 << max(2 * num_experts // top_k - 1, 1).bit_length())


def _positions(first: Int64s, tokens: Int64s) -> Int64s:
    """Of each token of the stretches, one after the other."""
    before = np.cumsum(tokens) - tokens
    return np.arange(int(tokens.sum())) - np.repeat(before - first, tokens)


def load_and_pairs(counts: Int32s, owner: Int32s, ranks: int) -> tuple[Int64s, Int64s]:
    """counts int32[R, layers, experts] by source rank, owner int32[layers, experts]: the one rank that has each ->
    (load int64[layers, experts], rows from rank to rank int64[layers, R, ranks]).
    """
    sources, layers, experts = counts.shape
    load = np.zeros((layers, experts), dtype=np.int64)
    pairs = np.zeros((layers, sources, ranks), dtype=np.int64)
    _add_pairs(counts, owner, load, pairs)
    return load, pairs


@njit
def group_after_group(
    table: Any, rows: Any, none: Any, begin: Any, owner: Any, own: Any, load: Any, pairs: Any
) -> None:  # fmt: skip
    """Tokens begin[g]:begin[g + 1] of each group as in `add_tokens`, then as in `load_and_pairs`; none int64[T] zeros;
    own uint16[1, layers, experts + 1] zeros, which stay in the cache of a core.
    """
    for group in range(begin.shape[0] - 1):
        one = slice(begin[group], begin[group + 1])
        add_tokens(table, rows[one], none[one], own)
        _add_pairs(own[:, :, : owner.shape[1]], owner, load, pairs[:, group : group + 1])
        own[:] = 0


@njit
def _add_pairs(counts: Any, owner: Any, load: Any, pairs: Any) -> None:
    """Experts of one rank stand side by side most often, so their sum is kept while the rank stays the same."""
    for source in range(counts.shape[0]):
        for layer in range(counts.shape[1]):
            rank, rows = owner[layer, 0], np.int64(0)
            for expert in range(counts.shape[2]):
                load[layer, expert] += counts[source, layer, expert]
                if owner[layer, expert] != rank:
                    pairs[layer, source, rank] += rows
                    rank, rows = owner[layer, expert], np.int64(0)
                rows += counts[source, layer, expert]
            pairs[layer, source, rank] += rows


@njit
def add_tokens(table: Any, rows: Any, group: Any, found: Any) -> None:
    """table uint16[N, layers, k], rows and group int64[T] -> added to found int32[groups, layers, experts + 1]."""
    none = np.uint64(found.shape[2] - 1)
    for token in range(rows.shape[0]):
        row, into = table[rows[token]], found[group[token]]
        for layer in range(row.shape[0]):
            for choice in range(row.shape[1]):
                into[layer, min(np.uint64(row[layer, choice]), none)] += 1


@njit
def block_sums(tokens: Any, block: int, sums: Any) -> None:
    """tokens uint16[N, layers, k] of a request -> sums[b]: of its first b blocks; the last is of all of it."""
    none, at = sums.shape[2] - 1, 0
    sums[0] = 0
    for token in range(tokens.shape[0]):
        if token % block == 0:
            at += 1
            sums[at] = sums[at - 1]
        for layer in range(tokens.shape[1]):
            for choice in range(tokens.shape[2]):
                sums[at, layer, min(np.int64(tokens[token, layer, choice]), none)] += 1


@njit
def add_stretches(
    table: Any, start: Any, length: Any, sums: Any, first_sum: Any, block: int, which: Any, first: Any, tokens: Any,
    group: Any, found: Any,
) -> None:  # fmt: skip
    """Stretches of recorded requests `which`, modulo their lengths, by their block sums."""
    for stretch in range(which.shape[0]):
        request, into = which[stretch], found[group[stretch]]
        own, size, begin = sums[first_sum[request] :], length[request], first[stretch] % length[request]
        wraps, end = (begin + tokens[stretch]) // size, (begin + tokens[stretch]) % size
        if wraps:
            into += own[-(-size // block)] * np.int32(wraps)
        _add_before(table[start[request] :], size, own, block, end, np.int32(1), into)
        _add_before(table[start[request] :], size, own, block, begin, np.int32(-1), into)


@njit
def _add_before(tokens: Any, size: int, sums: Any, block: int, end: int, sign: Any, into: Any) -> None:
    """`sign` times the counts of the first `end` of a request's `size` tokens, from the sum nearest to them."""
    none, nearest = into.shape[1] - 1, (end + block // 2) // block
    summed = min(nearest * block, size)
    for layer in range(into.shape[0]):
        for expert in range(none):
            into[layer, expert] += sign * sums[nearest, layer, expert]
    step = sign if summed <= end else -sign
    for token in range(min(summed, end), max(summed, end)):
        for layer in range(into.shape[0]):
            for choice in range(tokens.shape[2]):
                into[layer, min(np.int64(tokens[token, layer, choice]), none)] += step
