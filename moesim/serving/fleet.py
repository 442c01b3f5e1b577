"""Fleet: which replicas take requests in at what time: they die, return, are started and let go. The router knows.

A replica that dies loses the memory of its GPUs and the step under way. Its requests are lost, or come again to another
replica, where their prompt and what they have of an answer are computed anew; the client keeps the tokens it has had.
Where no replica is there they wait at the router.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
    """held: requests that wait at the router; left: those that are not answered, rejected or lost; pools: numbers of
    the replicas of each; scalers: who says how many there are, none for a pool whose replicas are always all there.
    """

    def __init__(
        self, book: Book, replicas: Sequence[Replica], outages: Sequence[Outage], pools: Sequence[range],
        scalings: Sequence[Scaling | None],
    ) -> None:  # fmt: skip
        self.book, self.replicas, self.outages = book, tuple(replicas), tuple(outages)
        self.held: deque[int] = deque()
        self.left = len(book.requests)
        self._dead = [0] * len(self.replicas)  # outages that it is in
        self._events = [(one.at, int(Kind.DIES), number) for number, one in enumerate(self.outages)]
        self._events += [(one.until, int(Kind.RETURNS), n) for n, one in enumerate(self.outages) if one.until < FAR]
        book.told = Told() if self.outages else None
        self.pools = tuple(pools)
        scales = zip(pools, scalings, strict=False)  # without any none does
        self.scalers = [Scaler(one, pool.start) for pool, one in scales if one]
        self._whose = {number: one for one in self.scalers for number in one.numbers}
        self._events += [(one.scaling.every, int(Kind.LOOK), n) for n, one in enumerate(self.scalers)]
        heapq.heapify(self._events)

    @property
    def unplayed(self) -> int:
        """Outages that begin when every request is answered."""
        return sum(kind == Kind.DIES for _, kind, _ in self._events)

    def soonest(self) -> int:
        """ps at which something changes, while there is a request that it could matter to."""
        return self._events[0][0] if self._events and self.left else FAR

    def change(self, loads: Sequence[int], stranded: int) -> Outage | None:
        """The first change, made; loads: of each replica, and of those that answer what others have begun so many
        requests that no replica has -> an outage that begins, its replica is dead now.
        """
        now, kind, number = heapq.heappop(self._events)
        if kind == Kind.LOOK:
            scaler = self.scalers[number]
            nobodys = len(self.held) if 0 in scaler.numbers else stranded
            self._look(scaler, sum(loads[one] for one in scaler.numbers) + nobodys, loads, now)
            if self._live():
                heapq.heappush(self._events, (now + scaler.scaling.every, int(Kind.LOOK), number))
        elif kind == Kind.READY:
            self._whose[number].serves(number, now)
        else:
            outage = self.outages[number]
            self._dead[outage.replica] += 1 if kind == Kind.DIES else -1
            return outage if kind == Kind.DIES else None
        return None

    def _look(self, scaler: Scaler, requests: int, loads: Sequence[int], now: int) -> None:
        """As many replicas as the rule wants."""
        serve = [number for number in self.there() if number in scaler.numbers]
        look = Look(requests, tuple(self.replicas[number].kv_share() for number in serve))
        for number in scaler.move(scaler.decide(look, now), self._dead, loads, now):
            heapq.heappush(self._events, (now + scaler.scaling.startup, int(Kind.READY), number))

    def _live(self) -> bool:
        """Of every pool there is a replica, or comes back: else no look brings anybody an answer."""
        back = {self.outages[number].replica for _, kind, number in self._events if kind == Kind.RETURNS}
        return all(any(not self._dead[number] or number in back for number in pool) for pool in self.pools)

    def settle(self, empty: Callable[[int], bool], now: int) -> None:
        """Those that were let go and are empty stop; their caches are gone."""
        for scaler in self.scalers:
            for number in filter(empty, scaler.draining()):
                self.replicas[number].fail(now)
                scaler.stop(number, now)

    def there(self) -> list[int]:
        """Replicas that serve."""
        alive = [number for number, dead in enumerate(self._dead) if not dead]
        return [n for n in alive if n not in self._whose or self._whose[n].phase[n] == Phase.ON]

    def choose(self, loads: Sequence[int], choose: Callable[[Sequence[int]], int]) -> int | None:
        """The replica that `choose` picks by the loads of those that are there; None where none is."""
        there = [number for number in self.there() if number < len(loads)]
        return there[choose([loads[number] for number in there])] if there else None

    def paid(self, begin: int, end: int, which: range) -> int:
        """ps between two times that replicas of a pool were paid, all together; dead ones too."""
        scaler = self._whose.get(which.start)
        return scaler.paid(begin, end) if scaler else (end - begin) * len(which)

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

    def down(self, end: int, which: range) -> int:
        """ps until `end` that replicas of a pool were paid and dead, of all together."""
        return sum(self._dead_within(*span) for span in self._paid(end, which))

    def could_work(self, end: int, which: range) -> dict[int, int]:
        """ps until `end` that each replica of a pool was paid and lived; one that was never paid is left out."""
        found = dict[int, int]()
        for number, since, until in self._paid(end, which):
            lived = until - since - self._dead_within(number, since, until)
            found[number] = found.get(number, 0) + max(lived, 0)
        return found

    def _paid(self, end: int, which: range) -> Iterator[tuple[int, int, int]]:
        """Replicas of a pool, each with the ps since and until it was paid, `end` at the latest."""
        scaler = self._whose.get(which.start)
        for number, since, until in scaler.spans(end) if scaler else ((number, 0, end) for number in which):
            yield number, since, min(until, end)

    def _dead_within(self, number: int, begin: int, end: int) -> int:
        """ps between two times that a replica was dead."""
        total, last = 0, begin
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
