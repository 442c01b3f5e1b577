"""Pools: prompts are computed by one pool of replicas, answers by another; between them KV moves over shared links.

The blocks of a request stay held where its prompt was computed until its KV is elsewhere. That leaves once a scheduler
of the replica that will answer has a seat and blocks for it, which it looks for between two steps; until then it waits,
in order, and a pool whose blocks are all held by such requests takes nobody in: back-pressure. The first token comes to
the client with the KV, from the pool that answers (SGLang, TensorRT-LLM).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from moesim.serving.balancer import ask_of, choose
from moesim.serving.book import Book, State
from moesim.serving.replica import Replica
from moesim.serving.transfer import Links


class Handover:
    """replicas: of both pools, the first `entry` of them compute prompts; loads: of each, requests that it has."""

    def __init__(
        self, book: Book, replicas: Sequence[Replica], entry: int, links: Links, balancer: str, rng: np.random.Generator
    ) -> None:
        self.book, self.replicas, self.entry, self.links = book, tuple(replicas), entry, links
        self._balancer, self._rng = balancer, rng
        self.loads = [0] * (len(replicas) - entry)
        self._queues: list[deque[int]] = [deque() for _ in self.loads]
        self._seats: dict[int, int] = {}  # request on its way -> scheduler of the replica that waits for it
        book.goal = np.ones_like(book.output)

    @property
    def under_way(self) -> int:
        """Requests whose prompts are computed and whose KV is not there yet."""
        return sum(map(len, self._queues)) + len(self._seats)

    def refuses(self, request: int) -> str:
        """Why a request can never be answered, "" if it can."""
        if self.book.output[request] == 1:
            return ""
        return self.replicas[self.entry].schedulers[0].refuses(request)

    def hand(self, request: int, now: int) -> None:
        """Its prompt is computed."""
        self.book.goal[request] = self.book.output[request]
        self.book.prefilled[request] = now
        chosen = choose(self._balancer, self.loads, ask_of(self.book.requests, request), self._rng)
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
            self.book.departed[request] = now
            source = self.replicas[self.book.replica[request]].devices(int(self.book.scheduler[request]))
            self.links.start(request, source, to.devices(seat), int(self.book.prompt[request]), now)

    def land(self, now: int) -> set[int]:
        """KV that is there by `now` -> replicas of both pools that have something new."""
        touched: set[int] = set()
        for request in self.links.landed(now):
            book, to = self.book, int(self.book.decoder[request])
            book.first[request] = book.last[request] = book.landed[request] = now
            book.state[request] = State.RUNNING
            self.replicas[to].schedulers[self._seats.pop(request)].land(request, now)
            self.replicas[book.replica[request]].schedulers[book.scheduler[request]].release(request)
            touched |= {to, int(book.replica[request])}
        return touched
