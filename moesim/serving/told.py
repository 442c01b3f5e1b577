"""Told: who had tokens in which steps, kept where requests may be lost: gaps are of answers that came to their end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moesim.serving.cadence import NEVER, Cadence, Span
from moesim.serving.requests import Ints


class Told:
    """A token of each of `requests`, or several at once, at the end of every step of a span."""

    def __init__(self) -> None:
        self._notes: list[tuple[Ints, Span | int]] = []

    def note(self, requests: Ints, span: Span) -> None:
        """They had theirs."""
        self._notes.append((requests, span))

    def mark(self, request: int, now: int) -> None:
        """It had one at `now`, by itself: with its KV, from another pool."""
        self._notes.append((np.array([request], dtype=np.int64), now))

    def gaps(self, requests: Sequence[int]) -> Iterator[tuple[Cadence | None, int, int]]:
        """Of each token of these but the first: the cadence and step that it came with, or None and ps, and ps since
        the one before.
        """
        last = dict.fromkeys(requests, NEVER)
        asked = np.array(requests, dtype=np.int64)
        for some, when in self._notes:
            for request in some[np.isin(some, asked)].tolist():
                for cadence, step, now in _times(when):
                    if last[request] != NEVER:
                        yield cadence, step, now - last[request]
                    last[request] = now


def _times(when: Span | int) -> Iterator[tuple[Cadence | None, int, int]]:
    """As Told.gaps, and ps."""
    if isinstance(when, int):
        yield None, when, when
        return
    cadence, first, end = when
    for step in range(first, end):
        yield cadence, step, cadence.before(step + 1)
