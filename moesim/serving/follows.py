"""Follows: requests that others have to come before, and what is due by what has happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.serving.requests import Ints


@dataclass(frozen=True)
class Follows:
    """Edges in order of their parent, those of request r at begin[r]:begin[r + 1]: child int64[E], which is not due
    before r has ended (at_end bool[E]), or before it was sent. Of each request, int64[n]: waits, edges that lead to it;
    delay, ps from the last of them to its being sent; session, the first request of its session; turn of it, from 0.
    Requests for whom none has to come before are the first ones.
    """

    begin: Ints
    child: Ints
    at_end: npt.NDArray[np.bool_]
    waits: Ints
    delay: Ints
    session: Ints
    turn: Ints

    @classmethod
    def of(cls, edges: tuple[Ints, Ints, npt.NDArray[np.bool_]], delay: Ints, session: Ints, turn: Ints) -> Follows:
        """edges: parent, child, at_end, in any order."""
        parent, child, at_end = edges
        order, n = np.argsort(parent, kind="stable"), len(session)
        begin = np.searchsorted(parent[order], np.arange(n + 1))
        return cls(begin, child[order], at_end[order], np.bincount(child, minlength=n), delay, session, turn)

    @property
    def first(self) -> int:
        """How many requests follow none."""
        return int(np.count_nonzero(self.waits == 0))


class Due:
    """What is still to come of the sessions of a run."""

    def __init__(self, follows: Follows) -> None:
        self.follows = follows
        self._waits = follows.waits.copy()
        self._open = np.bincount(follows.session, minlength=len(follows.session))  # of a session, requests not over

    def sent(self, request: int) -> list[int]:
        """Those that are due as a request was sent."""
        return self._met(request, ended=False)

    def ended(self, request: int) -> list[int]:
        """Those that are due as it has ended."""
        return self._met(request, ended=True)

    def _met(self, request: int, *, ended: bool) -> list[int]:
        follows, due = self.follows, []
        for edge in range(int(follows.begin[request]), int(follows.begin[request + 1])):
            child = int(follows.child[edge])
            if follows.at_end[edge] == ended and self._waits[child] > 0:
                self._waits[child] -= 1
                due += [child] if not self._waits[child] else []
        return due

    def dropped(self, request: int) -> list[int]:
        """Those that never come as a request has no end; they are over."""
        follows, gone, look = self.follows, [], [request]
        while look:
            parent = look.pop()
            for child in follows.child[follows.begin[parent] : follows.begin[parent + 1]].tolist():
                if self._waits[child] > 0:
                    self._waits[child] = 0
                    gone.append(child)
                    look.append(child)
        self._open[follows.session[request]] -= len(gone)
        return gone

    def closes(self, request: int) -> bool:
        """A request is over; is its session?"""
        session = int(self.follows.session[request])
        self._open[session] -= 1
        return not self._open[session]
