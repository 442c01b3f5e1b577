"""The loop: requests arrive, a balancer picks their replica, replicas take steps, answers leave. One clock in ps."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from moesim import streams
from moesim.errors import BrokenInvariant
from moesim.serving.balancer import ask_of, choose
from moesim.serving.book import Book, State
from moesim.serving.compiled_loop import FEWEST, CompiledLoop, unplayed
from moesim.serving.fleet import FAR, Fleet, Outage
from moesim.serving.follows import Due
from moesim.serving.paced_loop import PacedLoop, paced_clock
from moesim.serving.pools import Handover
from moesim.serving.replica import Replica
from moesim.serving.requests import Requests
from moesim.serving.scaling import Scaling
from moesim.serving.stages import Line, Stage
from moesim.serving.transfer import Links

POOLS = ("prefill_", "decode_")  # how names of what belongs to one of two begin
AFTER = 1  # ps from an answer to its client's next request: no step that begins with the answer knows of it


@dataclass
class Served:
    """What happened: the book, the replicas, and the rejected: request -> why; entry: how many of the replicas, the
    first ones, take requests in, where others answer them; fleet: where replicas come and go; line: of stages before.
    """

    book: Book
    replicas: tuple[Replica, ...]
    rejected: dict[int, str] = field(default_factory=dict)
    entry: int | None = None
    fleet: Fleet | None = None
    line: Line | None = None

    @property
    def end(self) -> int:
        """ps of the last answer, or of work that is lost or in vain after it."""
        steps = [replica.ended for replica in self.replicas]
        stages = [int(self.line.left.max(initial=0))] if self.line else []
        return max(int(self.book.ended.max(initial=0)), *steps, *stages)

    @property
    def pools(self) -> tuple[tuple[Replica, ...], ...]:
        """One, or those that compute prompts and those that answer."""
        split = self.entry or len(self.replicas)
        return tuple(pool for pool in (self.replicas[:split], self.replicas[split:]) if pool)


@dataclass
class Loop:
    """front: ps from a client to the replicas; watch: called after every event with the time (tests count there);
    links: where the first `entry` replicas compute prompts for the others, what carries KV between them; outages: when
    replicas are dead; scaling: how many there are, of each pool, None or left out where they are always all there.
    """

    book: Book
    replicas: tuple[Replica, ...]
    balancer: str = "least_outstanding"
    front: int = 0
    seed: int = 0
    watch: Callable[[int], None] | None = None
    links: Links | None = None
    entry: int = 0
    outages: Sequence[Outage] = ()
    scaling: Sequence[Scaling | None] = ()
    stages: Sequence[Stage] = ()

    def __post_init__(self) -> None:
        self._coming: list[tuple[int, int]] = []  # heaps of (ps, request), (ps, replica); at the same time, requests
        self._ending: list[tuple[int, int]] = []  # come before steps end and begin
        self._next = 0
        self._rng = streams.stream(self.seed, "serving", "balancer")
        self._loads = [0] * (self.entry or len(self.replicas))
        self.rejected: dict[int, str] = {}
        self.handover = (
            Handover(self.book, self.replicas, self.entry, self.links, self.balancer, self._rng) if self.links else None
        )
        follows = self.book.requests.follows
        self.due = Due(follows) if follows else None
        self.line = Line(self.stages, self.book) if self.stages else None
        changes = self.outages or any(self.scaling)
        self.fleet = Fleet(self.book, self.replicas, self.outages, self._pools(), self.scaling) if changes else None
        if self.handover and self.fleet:
            self.handover.revive(self.fleet.there(), 0)

    def _pools(self) -> list[range]:
        """Numbers of the replicas of each."""
        edges = (0, self.entry, len(self.replicas)) if self.handover else (0, len(self.replicas))
        return [range(*ends) for ends in pairwise(edges)]

    def serve(self) -> Served:
        """Until every request is answered or rejected."""
        self._send_first()
        now = self._play(0)
        while self.handover and self.fleet and self.handover.stranded:
            now = self._play(self._strand(self.handover, self.fleet, now))
        while self.fleet and self.fleet.held:
            for request in self.fleet.give_up():
                self._drop(request)
                self._go_on(request, now + AFTER)
            now = self._play(now)
        check_end(self.book, self.replicas)
        return Served(self.book, self.replicas, self.rejected, self.entry or None, self.fleet, self.line)

    def _play(self, now: int) -> int:
        """As long as something happens -> when it last did."""
        while (soonest := self._soonest()) < FAR:
            now = soonest
            for replica in self._happen(now):
                self._begin(replica, now)
            if self.watch:
                self.watch(now)
        return now

    def _strand(self, handover: Handover, fleet: Fleet, now: int) -> int:
        """Nobody will answer those whose prompts are computed: they are lost, and their blocks are free for others."""
        lost = handover.give_up()
        fleet.lose(lost)
        for request in lost:
            self._drop(request)
            self._go_on(request, now + AFTER)
        for replica in range(self.entry):
            if not self.replicas[replica].running:
                self._begin(replica, now)
        return now

    def _send_first(self) -> None:
        """In a closed loop every client sends one request, else they come by themselves."""
        for _ in range(self.book.requests.concurrency):
            self._send_next(0)

    def _send_next(self, now: int) -> None:
        if self._next < self.book.requests.first:
            self._send(self._next, now)
            self._next += 1

    def _send(self, request: int, now: int) -> None:
        self.book.sent[request] = now
        heapq.heappush(self._coming, (now + self.front, request))
        if self.due:
            self._send_all(self.due.sent(request), now)

    def _send_all(self, due: Sequence[int], now: int) -> None:
        """Requests that had to wait for what has happened now."""
        assert self.due is not None
        for request in due:
            self._send(request, now + max(int(self.due.follows.delay[request]), AFTER))

    def _over(self, request: int, now: int) -> None:
        """A request has its answer: what follows is due, or its client's next."""
        if self.due:
            self._send_all(self.due.ended(request), now)
        self._go_on(request, now + AFTER)

    def _drop(self, request: int) -> None:
        """It never has an answer: what had to follow it never comes."""
        if self.due:
            gone = self.due.dropped(request)
            self.book.state[gone] = State.ABORTED
            if self.fleet:
                self.fleet.left -= len(gone)

    def _go_on(self, request: int, now: int) -> None:
        """In a closed loop, a client whose request, or session, is over begins its next."""
        if (not self.due or self.due.closes(request)) and self.book.requests.concurrency:
            self._send_next(now)

    def _soonest(self) -> int:
        """When something happens next; requests that come by themselves are sent as the clock reaches them."""
        first = min(self._next_come(), self._ending[0][0] if self._ending else FAR)
        if self.fleet:
            first = min(first, self.fleet.soonest())
        return min(first, self.handover.links.soonest()) if self.handover else first

    def _next_come(self) -> int:
        """When a request comes next, as far as it is known."""
        requests = self.book.requests
        if not requests.concurrency and self._next < requests.first:
            due = int(requests.arrival[self._next])
            if not self._coming or due + self.front <= self._coming[0][0]:
                self._send_next(due)
        return self._coming[0][0] if self._coming else FAR

    def _happen(self, now: int) -> list[int]:
        """All events of `now` -> the replicas that may begin a step."""
        touched: set[int] = set()
        while self._soonest() == now:
            if self.handover and self.handover.links.soonest() == now:
                touched.update(which for which in self.handover.land(now) if not self.replicas[which].running)
            elif self._coming and self._coming[0][0] == now:
                touched.update(self._come(heapq.heappop(self._coming)[1], now))
            elif self._ending and self._ending[0][0] == now:
                touched.update(self._end(heapq.heappop(self._ending)[1], now))
            elif self.fleet:
                self._change(self.fleet, now)
            if self.fleet:
                self.fleet.settle(self._empty, now)
        return sorted(touched)

    def _empty(self, replica: int) -> bool:
        """It has no request, and holds no KV for others."""
        if self.handover:
            return self.handover.empty(replica) and not sum(self._loads[replica : replica + 1])
        return not self._loads[replica]

    def _come(self, request: int, now: int) -> Sequence[int]:
        if self.line and (leaves := self.line.enter(request, now)) is not None:
            heapq.heappush(self._coming, (leaves, request))
            return ()
        chosen = self._choose(request)
        if chosen is None:
            return ()
        self.book.state[request] = State.WAITING
        reason = self.handover.refuses(request) if self.handover else ""
        if reason := reason or self.replicas[chosen].receive(request, now):
            self.book.state[request] = State.REJECTED
            self.rejected[request] = reason
            if self.fleet:
                self.fleet.left -= 1
            self._drop(request)
            self._go_on(request, now)
            return ()
        self.book.replica[request] = chosen
        self._loads[chosen] += 1
        if self.handover:
            self.handover.enter(request)
        return () if self.replicas[chosen].running else (chosen,)

    def _choose(self, request: int) -> int | None:
        """The replica of a request; None where it waits until one is there."""
        ask = ask_of(self.book.requests, request)
        if not self.fleet:
            return choose(self.balancer, self._loads, ask, self._rng)
        chosen = self.fleet.choose(self._loads, lambda loads: choose(self.balancer, loads, ask, self._rng))
        if chosen is None:
            self.fleet.held.append(request)
            if self.book.state[request] == State.COMING:
                self.book.state[request] = State.WAITING
        return chosen

    def _change(self, fleet: Fleet, now: int) -> None:
        """Replicas come and go; whose requests wait at the router come, if one is there."""
        again, delay = list(fleet.held), 0
        others = self.handover.loads if self.handover else []
        stranded = len(self.handover.stranded) if self.handover else 0
        if outage := fleet.change([*self._loads, *others], stranded):
            again, delay = self._die(fleet, outage, now), outage.delay
        else:
            fleet.held.clear()
            if self.handover:
                self.handover.revive(fleet.there(), now)
        for request in again:
            heapq.heappush(self._coming, (now + delay, request))

    def _die(self, fleet: Fleet, outage: Outage, now: int) -> list[int]:
        """A replica dies -> the requests that come again; clients of lost ones send their next."""
        self._ending = [event for event in self._ending if event[1] != outage.replica]
        heapq.heapify(self._ending)
        if outage.replica < len(self._loads):
            self._loads[outage.replica] = 0
        held = self.handover.fail(outage.replica, now) if self.handover else ()
        had = fleet.fail(outage, now, held)
        if self.handover and outage.replica >= self.entry:
            self.handover.loads[outage.replica - self.entry] = 0
        if outage.retry:
            return had
        for request in had:
            self._drop(request)
            self._go_on(request, now + AFTER)
        return []

    def _end(self, replica: int, now: int) -> Sequence[int]:
        done = self.replicas[replica].end()
        if replica < len(self._loads):
            self._loads[replica] -= len(done)
        elif self.handover:
            self.handover.loads[replica - self.entry] -= len(done)
        for request in done.tolist():
            if self.book.state[request] == State.TRANSFER:
                assert self.handover is not None
                self.handover.hand(request, now)
            else:
                self._over(request, now)
                if self.fleet:
                    self.fleet.left -= 1
        if self.handover:
            self.handover.pump(replica, now)
        return (replica,)

    def _begin(self, replica: int, now: int) -> None:
        end = self.replicas[replica].begin(now, lambda: self._horizon(replica, now))
        if end is not None:
            heapq.heappush(self._ending, (end, replica))

    def _horizon(self, replica: int, now: int) -> int:
        """When somebody may come next; KV that waited for what the replica has found free leaves first. Who comes by
        himself does not ask what other replicas have ended.
        """
        if self.handover:
            self.handover.pump(replica, now)
        alone = not (self.handover or self.due or self.book.requests.concurrency)
        if not alone:
            return self._soonest()
        return min(self._next_come(), self.fleet.soonest()) if self.fleet else self._next_come()


def check_end(book: Book, replicas: Sequence[Replica]) -> None:
    """Raises BrokenInvariant where a request is left, or a block."""
    over = (State.FINISHED, State.REJECTED, State.LOST, State.ABORTED)
    if left := len(book.requests) - sum(map(book.count, over)):
        policies = sorted({one.settings.policy for replica in replicas for one in replica.schedulers})
        raise BrokenInvariant(f"{left} requests were never answered, by policy {', '.join(policies)}")
    for replica in replicas:
        for one in replica.schedulers:
            one.drain()
            if one.blocks.free != one.blocks.total:
                raise BrokenInvariant(f"{one.blocks.total - one.blocks.free} KV blocks were never returned")


def serve(
    requests: Requests, make: Callable[[Book], Sequence[Replica]], balancer: str = "least_outstanding", front: int = 0,
    seed: int = 0, watch: Callable[[Book, Sequence[Replica], int], None] | None = None, links: Links | None = None,
    entry: int = 0, outages: Sequence[Outage] = (), scaling: Sequence[Scaling | None] = (),
    stages: Sequence[Stage] = (),
) -> Served:  # fmt: skip
    """Serve all requests; `make` builds the replicas on the book of the run. With `links` the first `entry` of them
    compute prompts, the others answer. scaling: of each pool. stages: on their way there.
    """
    book = Book(requests, seed)
    replicas = tuple(make(book))
    plain = not (watch or links or outages or any(scaling) or stages) and len(requests) >= FEWEST
    if plain and not unplayed(book, replicas):
        clock = paced_clock(replicas)
        given = (book, replicas, balancer, front, seed)
        rejected = (PacedLoop(*given, *clock) if clock else CompiledLoop(*given)).serve()
        check_end(book, replicas)
        return Served(book, replicas, rejected)
    seen = (lambda now: watch(book, replicas, now)) if watch else None
    return Loop(book, replicas, balancer, front, seed, seen, links, entry, outages, scaling, stages).serve()
