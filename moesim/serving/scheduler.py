"""Scheduler: one queue and one KV cache, those of the ranks that share the attention of a request."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from moesim.serving.batcher import REGISTRY, Queue, Tray
from moesim.serving.book import NOBODY, Book, State
from moesim.serving.cadence import NEVER, Span
from moesim.serving.kv import Blocks
from moesim.serving.ordering import order_of
from moesim.serving.requests import Ints
from moesim.serving.settings import Settings
from moesim.serving.speculation import Speculation
from moesim.serving.swap import HostMemory, Swap
from moesim.serving.tiers import Tier

UNLIMITED = 1 << 40  # steps that a scheduler without requests does not mind


@dataclass(frozen=True)
class Rows:
    """What a scheduler brings to a step, int64[S] each: request, new tokens, tokens before them; decodes: how many of
    them, the first ones, are tokens of answers, one each, and drafts; ends bool[S]: a token comes out.
    """

    request: Ints
    query: Ints
    context: Ints
    decodes: int
    ends: npt.NDArray[np.bool_]

    @property
    def tokens(self) -> int:
        """New ones."""
        return int(self.query.sum())


@lru_cache(maxsize=4096)
def _ones(many: int) -> Ints:
    return np.ones(many, dtype=np.int64)


@lru_cache(maxsize=4096)
def _yes(many: int) -> npt.NDArray[np.bool_]:
    return np.ones(many, dtype=np.bool_)


class Scheduler:
    """inbox: (ps, request) that have come and were not looked at; leaving: (ps, requests, those of them whose blocks no
    other pool waits for) whose last token is out and whose seats and blocks come back when a step is put together that
    knows of it. landed: (ps, request) whose KV came from another pool. hands_over: answers are another pool's, blocks
    come back by `release` alone; handed: whose have not; expected: whose KV is on the way here. ttft: seconds, the
    scenario's limit, for an order that goes by it. host: memory behind the HBM, where there is some, pool: that of all
    engines.
    """

    def __init__(
        self, settings: Settings, book: Book, blocks: int, *, hands_over: bool = False, ttft: float | None = None,
        host: HostMemory | None = None, pool: Tier | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.book, self.hands_over = settings, book, hands_over
        self.host = host
        below = host.tiers(pool) if host and settings.prefix_cache else None
        self.blocks = Blocks(blocks, settings.block_size, len(book.requests), below)
        self.queue = Queue(
            book, self.blocks, settings.max_num_seqs, settings.reserved_output, settings.prefix_cache,
            order_of(settings.scheduling_policy, book, ttft), settings.num_speculative_tokens,
            Swap(host) if host and host.swap else None,
        )  # fmt: skip
        self._speculation = Speculation.of(settings, book.seed)
        self.inbox: deque[tuple[int, int]] = deque()
        self.leaving: deque[tuple[int, Ints, Ints]] = deque()
        self.landed: deque[tuple[int, int]] = deque()
        self.handed = self.expected = 0
        self._fill, self._chunked = REGISTRY[settings.policy]
        self._since_poll = 0
        self.backlog = False  # the last step that took prompts left some in the queue

    def refuses(self, request: int) -> str:
        """Why a request can never run here, "" if it can."""
        had = int(self.book.emitted[request])
        prompt = int(self.book.prompt[request]) + had
        output = 1 if self.hands_over else int(self.book.output[request]) - had
        if self.blocks.of(prompt + output + self.queue.drafts) > self.blocks.total:
            room = self.blocks.total * self.settings.block_size
            drafts = f" + {self.queue.drafts} drafts" if self.queue.drafts else ""
            return f"{prompt} + {output} tokens{drafts}, the KV cache holds {room}"
        if not self._chunked and prompt > self.settings.max_num_batched_tokens:
            budget = self.settings.max_num_batched_tokens
            return f"a prompt of {prompt} tokens, max_num_batched_tokens is {budget} and prompts are not cut"
        return ""

    @property
    def load(self) -> int:
        """Requests that have come and are not answered."""
        queue = self.queue
        come, running = len(self.inbox) + len(self.landed), len(queue.started) + len(queue.decoding)
        return come + len(queue.waiting) + len(queue.swapped) + running

    def welcome(self, request: int) -> bool:
        """Hold a seat and blocks for a request whose KV is to come; False where there are none, or others wait, or
        those that decode need them for their next token.
        """
        queue, tokens = self.queue, int(self.book.cached[request])
        if not queue.seats or queue.waiting or queue.swapped:
            return False
        tokens = max(tokens, queue.needed(request))
        if self.blocks.of(tokens) + self._lacking(queue.decoding) > self.blocks.free:
            return False
        self.blocks.admit(request, (), tokens)
        queue.sit(request)
        self.expected += 1
        return True

    def _lacking(self, requests: Ints) -> int:
        """Of these, those that need a block for one token more."""
        return len(self.blocks.lacking(requests, self.book.cached[requests]))

    def land(self, request: int, now: int) -> None:
        """Its KV is there."""
        self.expected -= 1
        self.landed.append((now, request))

    def cancel(self, request: int) -> None:
        """Its KV will not come: seat and blocks are free again."""
        self.expected -= 1
        self.queue.seats += 1
        self.blocks.give_back(request)

    def release(self, request: int) -> None:
        """Its KV is elsewhere."""
        self.handed -= 1
        self.queue.give_back(request)

    def compose(self, now: int, known: int, *, held: bool = False) -> Rows:
        """The rows of the step that begins at `now`, from what had happened by `known`; none where there is nothing.
        held: no prompts, as other ranks have none.
        """
        self._learn(known)
        tray = self._filled(now, held)
        if tray.empty and known < now:
            self._learn(now, idle=True)
            tray = self._filled(now, held)
        self._since_poll += 1
        self.backlog = self.backlog if held else bool(self.queue.waiting)
        return self._rows(tray, now)

    def has_prompt(self, known: int) -> bool:
        """Is there one that could run, as far as is known?"""
        self._learn(known)
        queue = self.queue
        return bool(queue.started or (queue.waiting and queue.seats and not queue.swapped))

    def _learn(self, known: int, *, idle: bool = False) -> None:
        while self.leaving and self.leaving[0][0] <= known:
            _, done, mine = self.leaving.popleft()
            self.queue.seats += len(done)
            for request in mine.tolist():
                self.queue.give_back(request)
        while self.landed and self.landed[0][0] <= known:
            self.queue.decoding = np.append(self.queue.decoding, self.landed.popleft()[1])
        queue = self.queue
        if self._since_poll < self.settings.poll_interval and (len(queue.decoding) or queue.started) and not idle:
            return
        while self.inbox and self.inbox[0][0] <= known:
            at, request = self.inbox.popleft()
            self.book.queued[request] = at
            queue.line_up(request)
        self._since_poll = 0

    def _filled(self, now: int, held: bool) -> Tray:
        """The policy's step; requests whose prompts block each other are evicted until one of them goes on."""
        while True:
            tray = Tray(self.queue, self.settings.max_num_batched_tokens, now, held=held)
            self._fill(tray)
            if held or not tray.empty or not self.queue.started or self.handed:
                return tray
            self.queue.evict_last(now)

    def _rows(self, tray: Tray, now: int) -> Rows:
        book, many = self.book, len(tray.decodes)
        if not tray.chunks:
            return Rows(tray.decodes, _ones(many) + self.queue.drafts, book.cached[tray.decodes], many, _yes(many))
        chunked, tokens = (np.array(column, dtype=np.int64) for column in zip(*tray.chunks, strict=True))
        self._start(chunked, now)
        request = np.append(tray.decodes, chunked)
        query = np.append(_ones(many) + self.queue.drafts, tokens)
        context = book.cached[request]
        ends = context + query == book.prompt[request] + book.emitted[request]
        ends[:many] = True
        return Rows(request, query, context, many, ends)

    def _start(self, chunked: Ints, now: int) -> None:
        book = self.book
        new = chunked[book.started[chunked] == NEVER]
        book.started[new] = now
        back = chunked[book.evicted[chunked] != NEVER]
        late = back[book.first[back] != NEVER]
        book.lost[late] += now - book.evicted[late]
        book.evicted[back] = NEVER
        book.state[chunked] = State.RUNNING

    @property
    def news(self) -> bool:
        """Somebody came or goes: what goes on by itself has to be put together anew."""
        return bool(self.inbox or self.landed or self.leaving)

    def wait(self) -> int:
        """ps of copies that the step which was put together waits for."""
        waits, self.blocks.copies = self.blocks.copies, 0
        return waits

    def settle(self, rows: Rows, span: Span) -> Ints:
        """The step is over -> requests that are answered."""
        if self._speculation and rows.decodes:
            return self._settle_drafts(rows, span, self._speculation)
        self.book.cached[rows.request] = rows.context + rows.query
        alone = rows.decodes == len(rows.request)
        done = self.book.emit(rows.request if alone else rows.request[rows.ends], span, rows.decodes)
        if self.settings.prefix_cache and self.book.requests.prefixes:
            self._keep(rows.request[rows.decodes :].tolist())
        chunked = rows.request[rows.decodes :][rows.ends[rows.decodes :]]
        if len(chunked):
            through = set(chunked.tolist())
            self.queue.started = [request for request in self.queue.started if request not in through]
            self.queue.decoding = np.append(self.queue.decoding, chunked)
        self._leave(done, span.end)
        return done

    def _settle_drafts(self, rows: Rows, span: Span, speculation: Speculation) -> Ints:
        """The same where drafts were checked: those that are right come out with the token after them."""
        book, many = self.book, rows.decodes
        decodes = rows.request[:many]
        right = speculation.right(decodes, book.emitted[decodes])
        book.drafted += many * speculation.drafts
        book.accepted += int(right.sum())
        tokens = np.minimum(1 + right, book.goal[decodes] - book.emitted[decodes])
        book.cached[decodes] += tokens
        done = book.emit_several(decodes, tokens, span)
        self._leave(done, span.end)
        if many == len(rows.request):
            return done
        prompts = Rows(rows.request[many:], rows.query[many:], rows.context[many:], 0, rows.ends[many:])
        return np.append(done, self.settle(prompts, span))

    def settle_many(self, rows: Rows, span: Span) -> Ints:
        """The same after several steps of decodes alone; there are blocks for them."""
        if not rows.decodes:
            return rows.request
        steps = span.last - span.first
        self.blocks.hold_all(rows.request, rows.context + steps)
        self.book.emit_many(rows.request, span)
        self._since_poll = (self._since_poll + steps - 2) % self.settings.poll_interval + 1
        done = self.book.complete(rows.request)
        self._leave(done, span.end)
        return done

    def _leave(self, done: Ints, end: int) -> None:
        if len(done):
            prefixes = self.book.requests.prefixes
            if self.settings.prefix_cache and prefixes and prefixes.answers:
                self._keep(done.tolist())
            decoding = self.queue.decoding
            self.queue.decoding = decoding[self.book.emitted[decoding] < self.book.goal[decoding]]
            mine = done[self.book.state[done] == State.FINISHED] if self.hands_over else done
            self.leaving.append((end, done, mine))
            self.handed += len(done) - len(mine)

    def _keep(self, requests: Sequence[int]) -> None:
        """What they have computed is found by others from now on."""
        for request in requests:
            full = int(self.book.cached[request]) // self.blocks.size
            self.blocks.fill(request, self.queue.contents(request)[:full])

    def drain(self) -> None:
        """Nothing runs any more: all that is leaving is gone. Raises BrokenInvariant where the blocks do not add up."""
        while self.leaving:
            self._learn(self.leaving[0][0])
        self.blocks.check_integrity()
        if self.queue.swap:
            self.queue.swap.check_integrity()

    def fail(self) -> list[int]:
        """The memory of its GPUs is lost -> requests that it had and that are not answered, in order."""
        queue = self.queue
        running = [*queue.decoding.tolist(), *(request for _, request in self.landed), *queue.started]
        gone = [request for _, done, _ in self.leaving for request in done.tolist()]
        for request in (*running, *gone):
            self.blocks.give_back(request)
        self.blocks.forget()
        queue.seats += len(running) + len(gone)
        had = [*running, *queue.swapped, *queue.waiting, *(request for _, request in self.inbox)]
        self.book.cached[[*running, *queue.swapped]] = 0
        queue.decoding, queue.started, self._since_poll = NOBODY, [], 0
        if queue.swap:
            queue.swap.forget()
        for line in (queue.swapped, queue.waiting, self.inbox, self.leaving, self.landed):
            line.clear()
        return had

    def stretch(self, rows: Rows) -> int:
        """So many steps like this one, of decodes alone, come one after the other if nobody else arrives; 1 if it is
        not known, or their KV might not fit, or push something out into a pool in which others look meanwhile.
        """
        queue, book = self.queue, self.book
        if not (rows.decodes or self.load or self.leaving):
            return UNLIMITED
        if self._speculation:
            return 1
        alone = rows.decodes == len(rows.request) and not queue.started
        coming = self.inbox or self.landed or ((queue.waiting or queue.swapped) and queue.seats)
        if not alone or self.leaving or coming or not rows.decodes:
            return 1
        steps = int((book.goal[rows.request] - book.emitted[rows.request]).min())
        first = 0 if self._lacking(rows.request) else 1  # a step that was put together has blocks for its tokens
        return min(steps, max(self.blocks.unseen // rows.decodes * self.blocks.size + first, 1))
