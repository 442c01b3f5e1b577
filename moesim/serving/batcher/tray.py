"""Tray: the step that a policy puts together, and the queue that it takes from."""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from moesim.serving.book import Book, State
from moesim.serving.cadence import NEVER
from moesim.serving.kv import Blocks
from moesim.serving.ordering import Rank
from moesim.serving.requests import Ints
from moesim.serving.swap import Swap

NONE: Ints = np.zeros(0, dtype=np.int64)


@dataclass
class Queue:
    """Of one scheduler, requests by number: waiting in order; started, of whose prompt a part is cached, in order;
    decoding int64[...]; seats that are free; turn: how many have got one; held: what share of an answer's KV is held
    from admission on; cache: blocks of shared prefixes are found again; rank: who comes first, and the last by it of
    those that run is who loses its cache, None for arrival; drafts: tokens beyond the next one that a step checks of
    each request; swap: host memory for KV of those that lost their blocks, and swapped: these, who come before all that
    wait.
    """

    book: Book
    blocks: Blocks
    seats: int
    held: float
    cache: bool = False
    rank: Rank | None = None
    drafts: int = 0
    swap: Swap | None = None
    swapped: deque[int] = field(default_factory=deque)
    waiting: deque[int] = field(default_factory=deque)
    started: list[int] = field(default_factory=list)
    decoding: Ints = field(default_factory=lambda: NONE)
    turn: int = 0

    def needed(self, request: int) -> int:
        """Tokens whose KV has to be there at admission, all of a step's prompt aside."""
        if not self.held:
            return 0
        return int(self.book.prompt[request] + np.ceil(self.held * self.book.goal[request])) + self.drafts

    def sit(self, request: int) -> None:
        """It takes a seat."""
        self.seats -= 1
        self.turn += 1
        self.book.admitted[request] = self.turn

    def line_up(self, request: int) -> None:
        """A request waits behind the others, or those that come before it."""
        if self.rank:
            insort(self.waiting, request, key=self.rank)
        else:
            self.waiting.append(request)

    def contents(self, request: int) -> list[int]:
        """Identities of the blocks that its prompt shares with others'."""
        prefixes = self.book.requests.prefixes
        return prefixes.blocks(request, self.blocks.size) if prefixes and self.cache else []

    def reusable(self, request: int) -> list[int]:
        """Of these, those that are there; the last token of a prompt is always computed, as the answer comes of it."""
        contents = self.contents(request)[: (int(self.book.prompt[request]) - 1) // self.blocks.size]
        return contents[: self.blocks.known(contents)]

    def reuse(self, request: int, tokens: int) -> None:
        """A request was admitted with so many tokens that were there."""
        self.book.cached[request] = tokens
        if self.cache:
            self.blocks.asked += int(self.book.prompt[request])
            self.blocks.found += tokens
        if self.book.started[request] == NEVER:
            self.book.reused[request] = tokens

    def evict_last(self, now: int) -> int:
        """Who got its seat last, or is the last by rank, loses its blocks and goes to the front of the queue; its KV is
        lost, or goes to the host where it decodes and there is room.
        """
        running = np.append(self.decoding, self.started).astype(np.int64)
        seats = self.book.admitted[running]
        last = max(running.tolist(), key=self.rank) if self.rank else int(running[np.argmax(seats)])
        whole = last not in self.started
        if whole:
            self.decoding = self.decoding[self.decoding != last]
        else:
            self.started.remove(last)
        kept = whole and self._to_host(last)
        self.give_back(last)
        if not kept:
            self.book.cached[last] = 0
        self.book.preempted[last] += 1
        self.book.evicted[last] = now
        self.book.state[last] = State.WAITING
        self.seats += 1
        self._line_up_again(self.swapped if kept else self.waiting, last)
        return last

    def give_back(self, request: int) -> None:
        """Its blocks are free; what full ones hold stays in the prefix cache until they are needed."""
        kept = self.cache and self.book.requests.prefixes is not None
        self.blocks.give_back(request, int(self.book.cached[request]) if kept else 0)

    def _to_host(self, request: int) -> bool:
        """Its KV goes there, if there is room."""
        blocks = self.blocks.of(int(self.book.cached[request]))
        if not self.swap or not self.swap.take(request, blocks):
            return False
        self.blocks.copies += blocks * self.swap.memory.copy
        return True

    def _line_up_again(self, line: deque[int], request: int) -> None:
        if self.rank:
            insort(line, request, key=self.rank)
        else:
            line.appendleft(request)

    def come_back(self, request: int, now: int) -> None:
        """The first of those whose KV is at the host has a seat, and blocks for it: it decodes again."""
        assert self.swap is not None
        self.swapped.popleft()
        self.blocks.copies += self.swap.give_back(request) * self.swap.memory.copy
        self.sit(request)
        self.decoding = np.append(self.decoding, request)
        self.book.lost[request] += now - self.book.evicted[request]
        self.book.evicted[request] = NEVER
        self.book.state[request] = State.RUNNING


@dataclass
class Tray:
    """left: tokens that the step still has room for; decodes int64[...]; chunks: (request, tokens) of prompts; held:
    prompts have to wait for other ranks' ones.
    """

    queue: Queue
    left: int
    now: int
    decodes: Ints = field(default_factory=lambda: NONE)
    chunks: list[tuple[int, int]] = field(default_factory=list)
    evicted: bool = False
    held: bool = False

    @property
    def empty(self) -> bool:
        """Nothing is in it."""
        return not self.chunks and not len(self.decodes)

    def add_decodes(self) -> None:
        """A token of every request that decodes; while their KV does not fit, the last that came is evicted."""
        queue = self.queue
        while len(queue.decoding):
            lacking = queue.blocks.lacking(queue.decoding, queue.book.cached[queue.decoding] + queue.drafts)
            if len(lacking) <= queue.blocks.free:
                queue.blocks.grow(lacking)
                break
            queue.evict_last(self.now)
            self.evicted = True
        self.decodes = queue.decoding
        self.left -= len(self.decodes) * (1 + queue.drafts)

    def add_started(self) -> None:
        """What prompts that have begun still lack, in order, as far as there is room."""
        for request in self.queue.started if not self.held else ():
            tokens = min(self.queue.book.missing(request), self.left)
            if tokens > 0 and self.queue.blocks.hold(request, int(self.queue.book.cached[request]) + tokens):
                self._add(request, tokens)

    def add_swapped(self) -> None:
        """Requests whose KV is at the host come back and decode, in order, while there are seats, room and blocks; none
        in a step that had to evict.
        """
        queue, each = self.queue, 1 + self.queue.drafts
        while queue.swapped and queue.seats and self.left >= each and not self.evicted:
            request = queue.swapped[0]
            tokens = int(queue.book.cached[request]) + each
            if not queue.blocks.hold(request, max(tokens, queue.needed(request))):
                return
            queue.come_back(request, self.now)
            self.decodes = queue.decoding
            self.left -= each

    def add_waiting(self, *, chunked: bool) -> None:
        """Requests from the front of the queue while there are seats, room and KV; whole prompts, or what fits.

        None is admitted in a step that had to evict, nor before those whose KV is at the host.
        """
        queue = self.queue
        may = not (self.held or self.evicted or queue.swapped)
        while may and queue.waiting and queue.seats and self.left > 0:
            request = queue.waiting[0]
            known = queue.reusable(request)
            found = len(known) * queue.blocks.size
            missing = queue.book.missing(request) - found
            tokens = min(missing, self.left)
            if tokens < missing and not chunked:
                return
            if not queue.blocks.admit(request, known, max(found + tokens, queue.needed(request))):
                return
            queue.reuse(request, found)
            queue.waiting.popleft()
            queue.started.append(request)
            queue.sit(request)
            self._add(request, tokens)

    def _add(self, request: int, tokens: int) -> None:
        self.chunks.append((request, tokens))
        self.left -= tokens
