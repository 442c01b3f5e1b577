"""Cadence: when a replica's steps ended, and how many tokens kept its beat: their gaps are counted, not kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.serving.requests import Ints

Whole = npt.NDArray[np.signedinteger[Any]]
NEVER = -1


class Cadence:
    """Of one replica: ends of its steps, ps, and for each how many tokens came then whose request had its last one at
    the end of the step before.
    """

    def __init__(self) -> None:
        self._ends: Ints = np.zeros(1024, dtype=np.int64)
        self._tokens: Whole = np.zeros(1024, dtype=np.int64)
        self._steps = 0

    def __len__(self) -> int:
        return self._steps

    def add(self, ends: Ints) -> None:
        """Steps that end at int64[n] ps, one after the other."""
        last = self._steps + len(ends)
        if last > len(self._ends):
            more = np.zeros(max(len(self._ends), len(ends)), dtype=np.int64)
            self._ends, self._tokens = np.append(self._ends, more), np.append(self._tokens, more)
        self._ends[self._steps : last] = ends
        self._steps = last

    def take(self, ends: Ints, tokens: Whole) -> None:
        """All steps at once, and the tokens that kept their beat."""
        self._ends, self._tokens, self._steps = ends, tokens, len(ends)

    def drop(self) -> None:
        """The last step, of which no token came."""
        self._steps -= 1

    def ends(self, first: int, last: int) -> Ints:
        """int64[last - first] ps."""
        return self._ends[first:last]

    def before(self, step: int) -> int:
        """ps at which the step before ended, NEVER before the first."""
        return int(self._ends[step - 1]) if step else NEVER

    def count(self, first: int, last: int, tokens: int) -> None:
        """So many tokens at the end of each of these steps."""
        self._tokens[first:last] += tokens

    def gaps(self, since: int) -> tuple[Ints, Whole]:
        """The gaps before steps that end at `since` ps or later, and how many tokens had each, where some had."""
        first = max(int(np.searchsorted(self._ends[: self._steps], since)), 1)
        ends, tokens = self._ends[first - 1 : self._steps], self._tokens[first : self._steps]
        kept = tokens > 0
        return np.diff(ends)[kept], tokens[kept]


class Span(NamedTuple):
    """Steps first .. last - 1 of a cadence."""

    cadence: Cadence
    first: int
    last: int

    @property
    def ends(self) -> Ints:
        """int64[steps] ps."""
        return self.cadence.ends(self.first, self.last)

    @property
    def end(self) -> int:
        """ps of the last one."""
        return self.cadence.before(self.last)

    @property
    def begin(self) -> int:
        """ps at which the step before the first one ended."""
        return self.cadence.before(self.first)
