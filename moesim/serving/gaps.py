"""Gaps between tokens, counted: of a long run there are tens of millions of steps, and each has a gap of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.serving.cadence import Whole
from moesim.serving.requests import Ints


def tallied(gaps: Sequence[Ints], counts: Sequence[Whole]) -> tuple[Ints, Whole]:
    """int64[n] ps each, and how many tokens had each -> the different ones, ascending, and how many had them.

    A gap and its count are one number while they are sorted, in place; a count too large for its bits stands as
    several.
    """
    most = max((int(part.max(initial=0)) for part in gaps), default=0)
    bits = min(63 - max(most, 1).bit_length(), 31)
    packed = np.concatenate([np.zeros(0, dtype=np.int64), *map(_packed, gaps, counts, [bits] * len(gaps))])
    packed.sort()
    many: Whole = (packed & ((1 << bits) - 1)).astype(np.int32)
    packed >>= bits
    if int(many.sum(dtype=np.int64)) >= 1 << 31:
        many = many.astype(np.int64)
    new = np.append(True, packed[1:] != packed[:-1])[: len(packed)]
    if new.all():
        return packed, many
    return packed[new], np.add.reduceat(many, np.flatnonzero(new))


def _packed(gaps: Ints, counts: Whole, bits: int) -> Ints:
    """gap << bits | count."""
    most = (1 << bits) - 1
    if int(counts.max(initial=0)) > most:
        times = -(-counts.astype(np.int64) // most)
        last = np.cumsum(times) - 1
        pieces = np.full(int(times.sum()), most, dtype=np.int64)
        pieces[last] = counts - (times - 1) * most
        gaps, counts = np.repeat(gaps, times), pieces
    found: Ints = gaps << bits
    found |= counts
    return found
