"""Pools: prompts are computed by one pool of replicas, answers by another; between them KV moves over shared links.

The blocks of a request stay held where its prompt was computed until its KV is elsewhere. That leaves once a scheduler
of the replica that will answer has a seat and blocks for it, which it looks for between two steps; until then it waits,
in order, and a pool whose blocks are all held by such requests takes nobody in: back-pressure. The first token comes to
the client with the KV, from the pool that answers (SGLang, TensorRT-LLM).

Replicas may die. KV that one held is computed again from the prompt and the tokens that the client has had; KV on its
way to one is still where it was computed, and leaves again for another, or waits until one is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from moesim.serving.balancer import ask_of, choose
from moesim.serving.book import Book
from moesim.serving.cadence import NEVER
from moesim.serving.replica import Replica
from moesim.serving.transfer import Links


class Handover:
    """replicas: of both pools, the first `entry` of them compute prompts; held: requests whose KV each of these holds
    for others; loads: of each other one, requests that it has; there: which of these serve; stranded: requests whose KV
    has nowhere to go.
    """

    def __init__(
        self, book: Book, replicas: Sequence[Replica], entry: int, links: Links, balancer: str, rng: np.random.Generator
    ) -> None:
        self.book, self.replicas, self.entry, self.links = book, tuple(replicas), entry, links
        self._balancer, self._rng = balancer, rng
        self.held = [0] * entry
        self.loads = [0] * (len(replicas) - entry)
        self.there = list(range(len(self.loads)))
        self.stranded: deque[int] = deque()
        self._queues: list[deque[int]] = [deque() for _ in self.loads]
        self._seats: dict[int, int] = {}  # request on its way -> scheduler of the replica that waits for it
        book.goal, book.pooled = np.ones_like(book.output), True

    @property
    def under_way(self) -> int:
        """Requests whose prompts are computed and whose KV is not there yet."""
        return sum(map(len, self._queues)) + len(self._seats) + len(self.stranded)

    def refuses(self, request: int) -> str:
        """Why a request can never be answered, "" if it can."""
        if self.book.output[request] == 1:
            return ""
        return self.replicas[self.entry].schedulers[0].refuses(request)

    def enter(self, request: int) -> None:
        """Its prompt, and what the client has had, will be computed: a token comes of it."""
        self.book.goal[request] = self.book.emitted[request] + 1

    def hand(self, request: int, now: int) -> None:
        """Its prompt is computed."""
        self.book.goal[request] = self.book.output[request]
        if self.book.landed[request] == NEVER:
            self.book.prefilled[request] = now
        self.held[int(self.book.replica[request])] += 1
        self._place(request, now)

    def _place(self, request: int, now: int) -> None:
        """Choose who answers it."""
        if not self.there:
            self.stranded.append(request)
            return
        loads = [self.loads[number] for number in self.there]
        chosen = self.there[choose(self._balancer, loads, ask_of(self.book.requests, request), self._rng)]
        self.loads[chosen] += 1
        self.book.decoder[request] = self.entry + chosen
        self._queues[chosen].append(request)
        if not self.replicas[self.entry + chosen].running:
            self.pump(self.entry + chosen, now)

    def pump(self, replica: int, now: int) -> None:
        """KV that waits for room in a replica leaves, in order, as far as there is some."""
        if replica < self.entry:
            return
        queue, to = self._queues[replica - self.entry], self.replicas[replica]
        while queue and (seat := to.welcome(queue[0])) is not None:
            request = queue.popleft()
            self._seats[request] = seat
            if self.book.landed[request] == NEVER:
                self.book.departed[request] = now
            source = self.replicas[self.book.replica[request]].devices(int(self.book.scheduler[request]))
            self.links.start(request, source, to.devices(seat), int(self.book.cached[request]), now)

    def land(self, now: int) -> set[int]:
        """KV that is there by `now` -> replicas of both pools that have something new."""
        touched: set[int] = set()
        for request in self.links.landed(now):
            book, to = self.book, int(self.book.decoder[request])
            book.deliver(request, now)
            self.replicas[to].land(self._seats.pop(request), request, now)
            self._let_go(request)
            touched |= {to, int(book.replica[request])}
        return touched

    def _let_go(self, request: int) -> None:
        """Its KV is not held any more where its prompt was computed."""
        number = int(self.book.replica[request])
        self.replicas[number].release(int(self.book.scheduler[request]), request)
        self.held[number] -= 1

    def empty(self, replica: int) -> bool:
        """It holds no KV for others, or answers nobody."""
        return not (self.held[replica] if replica < self.entry else self.loads[replica - self.entry])

    def fail(self, replica: int, now: int) -> list[int]:
        """A replica dies -> requests whose KV it held for others, which have to be computed again."""
        column = self.book.replica if replica < self.entry else self.book.decoder
        waiting = [request for queue in (*self._queues, self.stranded) for request in queue]
        gone = [request for request in (*self._seats, *waiting) if column[request] == replica]
        if replica >= self.entry:
            gone = [request for request in gone if request not in self.stranded]
            self.there = [number for number in self.there if number != replica - self.entry]
        self._take_back(gone, now)
        for request in gone:
            if replica < self.entry:
                self._let_go(request)
                self.book.recall(request)
            else:
                self._place(request, now)
        for number in self.there if replica < self.entry else ():
            if not self.replicas[self.entry + number].running:
                self.pump(self.entry + number, now)
        return gone if replica < self.entry else []

    def _take_back(self, gone: Sequence[int], now: int) -> None:
        """These wait for nobody any more, and are not on their way."""
        self.links.abort([request for request in gone if request in self._seats], now)
        for request in gone:
            if request in self.stranded:
                self.stranded.remove(request)
                continue
            number = int(self.book.decoder[request]) - self.entry
            self.loads[number] -= 1
            if request in self._seats:
                self.replicas[self.entry + number].cancel(self._seats.pop(request), request)
            else:
                self._queues[number].remove(request)

    def revive(self, there: Sequence[int], now: int) -> None:
        """These of all replicas serve: what had nowhere to go leaves."""
        self.there = [number - self.entry for number in there if number >= self.entry]
        for _ in range(len(self.stranded) if self.there else 0):
            self._place(self.stranded.popleft(), now)

    def give_up(self) -> list[int]:
        """Nobody will ever answer those that are stranded -> these."""
        lost = list(self.stranded)
        self.stranded.clear()
        for request in lost:
            self._let_go(request)
        return lost
