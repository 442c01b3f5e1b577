"""Fleet: which replicas take requests in at what time: they die, return, are started and let go. The router knows.

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

from moesim.serving.autoscaler import Look
from moesim.serving.book import Book, State
from moesim.serving.cadence import NEVER
from moesim.serving.replica import Replica
from moesim.serving.scaling import Phase, Scaler, Scaling
from moesim.serving.told import Told

FAR = 1 << 62


class Kind(IntEnum):
    """What happens to a replica; at the same time, who returns comes first."""

    RETURNS = 0
    READY = 1
    DIES = 2
    LOOK = 3


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
    """held: requests that wait at the router; left: those that are not answered, rejected or lost; scaler: who says
    how many replicas there are, None where they are always all there.
    """

    def __init__(
        self, book: Book, replicas: Sequence[Replica], outages: Sequence[Outage],
        scaling: Scaling | None = None,
    ) -> None:  # fmt: skip
        self.book, self.replicas, self.outages = book, tuple(replicas), tuple(outages)
        self.held: deque[int] = deque()
        self.left = len(book.requests)
        self._dead = [0] * len(self.replicas)  # outages that it is in
        self._events = [(one.at, int(Kind.DIES), number) for number, one in enumerate(self.outages)]
        self._events += [(one.until, int(Kind.RETURNS), n) for n, one in enumerate(self.outages) if one.until < FAR]
        book.told = Told() if self.outages else None
        self.scaler = Scaler(scaling) if scaling else None
        if scaling:
            self._events.append((scaling.every, int(Kind.LOOK), 0))
        heapq.heapify(self._events)

    @property
    def unplayed(self) -> int:
        """Outages that begin when every request is answered."""
        return sum(kind == Kind.DIES for _, kind, _ in self._events)

    def soonest(self) -> int:
        """ps at which something changes, while there is a request that it could matter to."""
        return self._events[0][0] if self._events and self.left else FAR

    def change(self, loads: Sequence[int]) -> Outage | None:
        """The first change, made; loads: of each replica -> an outage that begins, its replica is dead now."""
        now, kind, number = heapq.heappop(self._events)
        if kind == Kind.LOOK:
            self._look(loads, now)
        elif kind == Kind.READY and self.scaler:
            self.scaler.serves(number, now)
        elif kind in (Kind.DIES, Kind.RETURNS):
            outage = self.outages[number]
            self._dead[outage.replica] += 1 if kind == Kind.DIES else -1
            return outage if kind == Kind.DIES else None
        return None

    def _look(self, loads: Sequence[int], now: int) -> None:
        """As many replicas as the rule wants; it looks again unless all are dead for ever."""
        assert self.scaler is not None
        kv = tuple(self.replicas[number].kv_share() for number in self.there())
        look = Look(sum(loads) + len(self.held), kv)
        for number in self.scaler.move(self.scaler.decide(look, now), self._dead, loads, now):
            heapq.heappush(self._events, (now + self.scaler.scaling.startup, int(Kind.READY), number))
        for number, load in enumerate(loads):
            self.emptied(number, load, now)
        if not all(self._dead) or any(kind == Kind.RETURNS for _, kind, _ in self._events):
            heapq.heappush(self._events, (now + self.scaler.scaling.every, int(Kind.LOOK), 0))

    def emptied(self, replica: int, load: int, now: int) -> None:
        """One that is let go stops once it has no request; its cache is gone."""
        if self.scaler and not load and self.scaler.phase[replica] == Phase.DRAINING:
            self.replicas[replica].fail(now)
            self.scaler.stop(replica, now)

    def there(self) -> list[int]:
        """Replicas that serve."""
        alive = [number for number, dead in enumerate(self._dead) if not dead]
        phase = self.scaler.phase if self.scaler else None
        return [number for number in alive if phase[number] == Phase.ON] if phase else alive

    def choose(self, loads: Sequence[int], choose: Callable[[Sequence[int]], int]) -> int | None:
        """The replica that `choose` picks by the loads of those that are there; None where none is."""
        there = [number for number in self.there() if number < len(loads)]
        return there[choose([loads[number] for number in there])] if there else None

    def paid(self, begin: int, end: int) -> int:
        """ps between two times that replicas were paid, all together; dead ones too."""
        return self.scaler.paid(begin, end) if self.scaler else (end - begin) * len(self.replicas)

    def fail(self, outage: Outage, now: int, held: Sequence[int] = ()) -> list[int]:
        """A replica dies -> the requests that it had, in order; held: those whose KV it held for others, after them."""
        book, had = self.book, [*self.replicas[outage.replica].fail(now), *held]
        if outage.retry:
            book.state[had] = State.RETRYING
            new = [r for r in had if book.started[r] != NEVER and book.evicted[r] == NEVER]
            book.evicted[new] = now
            book.retried[had] += 1
        else:
            self.lose(had)
        return had

    def down(self, end: int, which: Sequence[int]) -> int:
        """ps until `end` that these replicas were dead, of all together."""
        total = 0
        for number in which:
            last = 0
            for at, until in sorted((one.at, one.until) for one in self.outages if one.replica == number):
                total += max(min(until, end) - max(at, last), 0)
                last = max(last, until)
        return total

    def give_up(self) -> list[int]:
        """Nobody will be there any more for those that are held -> these."""
        lost = list(self.held)
        self.held.clear()
        self.lose(lost)
        return lost

    def lose(self, requests: Sequence[int]) -> None:
        """They have no answer."""
        self.book.lose(requests)
        self.left -= len(requests)
