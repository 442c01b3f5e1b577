"""Fleet: which replicas take requests in at what time: they die and return. The router knows at once.

A replica that dies loses the memory of its GPUs and the step under way. Its requests are lost, or come again to another
replica, where their prompt and what they have of an answer are computed anew; the client keeps the tokens it has had.
Where no replica is there they wait at the router.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from moesim.serving.book import Book, State
from moesim.serving.cadence import NEVER
from moesim.serving.replica import Replica

FAR = 1 << 62


class Kind(IntEnum):
    """What happens to a replica; at the same time, who returns comes first."""

    RETURNS = 0
    DIES = 1


@dataclass(frozen=True)
class Outage:
    """A replica is dead from `at` to `until` ps, FAR for ever; retry: its requests come to another one `delay` ps
    later, or they are lost.
    """

    replica: int
    at: int
    until: int = FAR
    retry: bool = True
    delay: int = 0


class Fleet:
    """held: requests that wait at the router; left: requests that are not answered, rejected or lost."""

    def __init__(self, book: Book, replicas: Sequence[Replica], outages: Sequence[Outage]) -> None:
        self.book, self.replicas, self.outages = book, tuple(replicas), tuple(outages)
        self.held: deque[int] = deque()
        self.left = len(book.requests)
        self._dead = [0] * len(self.replicas)  # outages that it is in
        self._events = [(one.at, int(Kind.DIES), number) for number, one in enumerate(self.outages)]
        self._events += [(one.until, int(Kind.RETURNS), n) for n, one in enumerate(self.outages) if one.until < FAR]
        heapq.heapify(self._events)

    @property
    def unplayed(self) -> int:
        """Outages that begin when every request is answered."""
        return sum(kind == Kind.DIES for _, kind, _ in self._events)

    def soonest(self) -> int:
        """ps at which something changes, while there is a request that it could matter to."""
        return self._events[0][0] if self._events and self.left else FAR

    def change(self) -> tuple[Kind, Outage]:
        """The first change, made."""
        _, kind, number = heapq.heappop(self._events)
        outage = self.outages[number]
        self._dead[outage.replica] += 1 if kind == Kind.DIES else -1
        return Kind(kind), outage

    def choose(self, loads: Sequence[int], choose: Callable[[Sequence[int]], int]) -> int | None:
        """The replica that `choose` picks by the loads of those that are there; None where none is."""
        there = [number for number, dead in enumerate(self._dead) if not dead]
        return there[choose([loads[number] for number in there])] if there else None

    def fail(self, outage: Outage, now: int) -> list[int]:
        """A replica dies -> the requests that it had, in order."""
        book, had = self.book, self.replicas[outage.replica].fail(now)
        book.state[had] = State.RETRYING if outage.retry else State.LOST
        if outage.retry:
            new = [r for r in had if book.started[r] != NEVER and book.evicted[r] == NEVER]
            book.evicted[new] = now
            book.retried[had] += 1
        else:
            self.left -= len(had)
        return had

    def down(self, end: int) -> int:
        """ps until `end` that replicas were dead, of all together."""
        total = 0
        for number in range(len(self.replicas)):
            last = 0
            for at, until in sorted((one.at, one.until) for one in self.outages if one.replica == number):
                total += max(min(until, end) - max(at, last), 0)
                last = max(last, until)
        return total

    def give_up(self) -> None:
        """Nobody will be there any more for those that are held."""
        self.book.state[list(self.held)] = State.LOST
        self.left -= len(self.held)
        self.held.clear()
