"""Gaps between tokens, counted: of a long run there are tens of millions of steps, and each has a gap of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from moesim.compiled import njit
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
    total = sum(int(counts.sum(dtype=np.int64)) for _, counts in parts())
    packed = np.empty(sum(int(_pieces(counts, bits).sum()) for _, counts in parts()), dtype=np.int64)
    at = 0
    for gaps, counts in parts():
        some = _packed(gaps, counts, bits)
        packed[at : at + len(some)] = some
        at += len(some)
    packed.sort()
    many: Whole = np.empty(len(packed), dtype=np.int64 if total >= 1 << 31 else np.int32)
    different = int(merged(packed, bits, many))
    return packed[:different], many[:different]


@njit
def merged(packed: Any, bits: int, many: Any) -> Any:
    """packed int64[n] ascending (gap << bits | count) -> how many different gaps there are, which stand at its front
    then; many [n]: their counts.
    """
    last, mask = -1, (np.int64(1) << bits) - 1
    for one in range(packed.shape[0]):
        gap, count = packed[one] >> bits, packed[one] & mask
        if last >= 0 and packed[last] == gap:
            many[last] += count
        else:
            last += 1
            packed[last], many[last] = gap, count
    return last + 1


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
