"""Gaps between tokens, counted: of a long run there are tens of millions of steps, and each has a gap of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from moesim.serving.cadence import Whole
from moesim.serving.requests import Ints

Parts = Callable[[], Iterable[tuple[Ints, Whole]]]


def tallied(parts: Parts) -> tuple[Ints, Whole]:
    """Gaps int64[n] ps and how many tokens had each, part by part, asked for several times as none is kept -> the
    different ones, ascending, and how many had them.

    A gap and its count are one number while they are sorted, in place; a count too large for its bits stands as
    several.
    """
    most = max((int(gaps.max(initial=0)) for gaps, _ in parts()), default=0)
    bits = min(63 - max(most, 1).bit_length(), 31)
    packed = np.empty(sum(int(_pieces(counts, bits).sum()) for _, counts in parts()), dtype=np.int64)
    at = 0
    for gaps, counts in parts():
        some = _packed(gaps, counts, bits)
        packed[at : at + len(some)] = some
        at += len(some)
    packed.sort()
    many: Whole = np.empty(len(packed), dtype=np.int32)
    np.bitwise_and(packed, (1 << bits) - 1, out=many, casting="unsafe")
    packed >>= bits
    if int(many.sum(dtype=np.int64)) >= 1 << 31:
        many = many.astype(np.int64)
    new = np.append(True, packed[1:] != packed[:-1])[: len(packed)]
    if new.all():
        return packed, many
    many = np.add.reduceat(many, np.flatnonzero(new))
    return packed[new], many


def _pieces(counts: Whole, bits: int) -> Whole:
    """In how many each count stands."""
    return -(-counts // ((1 << bits) - 1))


def _packed(gaps: Ints, counts: Whole, bits: int) -> Ints:
    """gap << bits | count."""
    most = (1 << bits) - 1
    if int(counts.max(initial=0)) > most:
        times = _pieces(counts.astype(np.int64), bits)
        last = np.cumsum(times) - 1
        pieces = np.full(int(times.sum()), most, dtype=np.int64)
        pieces[last] = counts - (times - 1) * most
        gaps, counts = np.repeat(gaps, times), pieces
    found: Ints = gaps << bits
    found |= counts
    return found
