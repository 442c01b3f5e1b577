"""Book: what is known of every request while it is served, a column each, shared by all replicas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.serving.cadence import NEVER, Cadence, Span, Whole
from moesim.serving.gaps import tallied
from moesim.serving.requests import Ints, Requests
from moesim.serving.told import Told

if TYPE_CHECKING:
    from moesim.serving.stages import Inside

NOBODY: Ints = np.zeros(0, dtype=np.int64)


class State(IntEnum):
    """Where a request is."""

    COMING = 0
    WAITING = 1
    RUNNING = 2
    FINISHED = 3
    REJECTED = 4
    TRANSFER = 5  # its prompt is computed, its KV on the way to another pool, or waiting for room there
    RETRYING = 6  # its replica died, no other has taken it in yet
    LOST = 7  # with its replica
    ABORTED = 8  # never sent: what had to come before it in its session has no answer


class Book:
    """int64[n] each. cached: tokens in the KV cache; emitted: tokens of the answer; ps of the first time in the queue,
    of the first step, of the first token, of the last one so far, of the end, NEVER before; evicted: ps at which it
    lost its cache and was queued again; lost: ps between such times and the next step, after the first token;
    preempted: how often; admitted: its scheduler's count of seats when it got its own; retried: how often its replica
    died; reused: tokens of its prompt that were cached when it came; replica, scheduler: who serves it; goal: tokens
    after which it leaves these. Between pools also prefilled, departed, landed: ps of its prompt's end, of its KV's
    leaving and arrival; decoder: the replica that answers it.
    """

    def __init__(self, requests: Requests, seed: int = 0) -> None:
        n, self.seed = len(requests), seed
        self.drafted = self.accepted = 0  # draft tokens
        self.requests, self.prompt, self.output = requests, requests.prompt, requests.output
        self.goal = self.output
        self.state: npt.NDArray[np.int8] = np.zeros(n, dtype=np.int8)
        self.cached, self.emitted, self.lost, self.preempted, self.retried, self.reused, self.admitted = (
            np.zeros(n, dtype=np.int64) for _ in range(7)
        )
        self.sent, self.queued, self.started, self.first, self.last, self.ended, self.evicted, self.replica = (
            np.full(n, NEVER, dtype=np.int64) for _ in range(8)
        )
        self.scheduler, self.decoder, self.prefilled, self.departed, self.landed = (
            np.full(n, NEVER, dtype=np.int64) for _ in range(5)
        )
        self.cadences: list[Cadence] = []
        self._gaps: list[tuple[Ints | int, Ints]] = []  # between tokens that keep no beat: ps of ends, and gaps
        self.told: Told | None = None  # where requests may be lost
        self.pooled = False  # a token that a goal below the output ends with is with the client when KV has landed
        self.inside: list[Inside] = []  # stages that steps wait for, of each pool that has some

    def missing(self, request: int) -> int:
        """Tokens that are not cached: of the prompt, or after an eviction of the answer too."""
        return int(self.prompt[request] + self.emitted[request] - self.cached[request])

    def emit(self, requests: Ints, span: Span, decodes: int = 0) -> Ints:
        """A token of each at the end of one step -> those who have reached their goal. decodes: of the first so many it
        is known that they have had one.
        """
        emitted, last, now = self.emitted[requests], self.last[requests], span.end
        if self.pooled and decodes < len(requests):
            return self._emit_apart(requests, span)
        self._tell(requests, span)
        if decodes == len(requests):
            self._gap(last, span)
        else:
            again = emitted > 0
            self._gap(last[again], span)
            self.first[requests[~again]] = now
        emitted += 1
        self.emitted[requests], self.last[requests] = emitted, now
        over = emitted == self.goal[requests]
        if not over.any():
            return NOBODY
        return self._leave(requests[over])

    def _emit_apart(self, requests: Ints, span: Span) -> Ints:
        """The same where prompts may have been computed for another pool."""
        handed = (self.goal[requests] < self.output[requests]) & (self.emitted[requests] + 1 == self.goal[requests])
        stay, gone = requests[~handed], requests[handed]
        self._tell(stay, span)
        self._gap(self.last[stay[self.emitted[stay] > 0]], span)
        for some in (stay, gone[self.emitted[gone] == 0]):
            self.first[some[self.emitted[some] == 0]] = span.end
            self.last[some] = span.end
        self.emitted[requests] += 1
        return self._leave(requests[self.emitted[requests] == self.goal[requests]])

    def deliver(self, request: int, now: int) -> None:
        """The KV of a request has landed, and with it the client has its token."""
        if self.landed[request] == NEVER:
            self.first[request] = self.landed[request] = now
        else:
            self._gaps.append((now, now - self.last[[request]]))
        self.last[request] = now
        self.state[request] = State.RUNNING
        if self.told:
            self.told.mark(request, now)

    def recall(self, request: int) -> None:
        """KV of a request whose prompt is computed is lost on its way, and the token that would have come with it."""
        self.emitted[request] -= 1
        self.cached[request] = 0
        if not self.emitted[request]:
            self.first[request] = self.last[request] = NEVER

    def emit_several(self, requests: Ints, tokens: Ints, span: Span) -> Ints:
        """So many tokens int64[...] of each at the end of one step, together; all have had one -> as emit."""
        self._tell(requests, span)
        self._gap(self.last[requests], span)
        self.emitted[requests] += tokens
        self.last[requests] = span.end
        return self._leave(requests[self.emitted[requests] == self.goal[requests]])

    def emit_many(self, requests: Ints, span: Span) -> None:
        """A token of each at the end of every step; all have had one, none is complete before the last."""
        self._tell(requests, span)
        self._gap(self.last[requests], span)
        span.cadence.count(span.first + 1, span.last, len(requests))
        self.emitted[requests] += span.last - span.first
        self.cached[requests] += span.last - span.first
        self.last[requests] = span.end

    def complete(self, requests: Ints) -> Ints:
        """Those whose last token was their last."""
        return self._leave(requests[self.emitted[requests] == self.goal[requests]])

    def _leave(self, done: Ints) -> Ints:
        """They have reached their goal: the end, or another pool."""
        whole = self.emitted[done] == self.output[done]
        self.state[done] = np.where(whole, State.FINISHED, State.TRANSFER)
        self.ended[done[whole]] = self.last[done[whole]]
        return done

    def _gap(self, last: Ints, span: Span) -> None:
        """Tokens at the end of the first step, of requests whose last ones came at int64[...] ps."""
        steady = last == span.begin
        many = int(np.count_nonzero(steady))
        span.cadence.count(span.first, span.first + 1, many)
        if many < len(last):
            now = int(span.ends[0])
            self._gaps.append((now, now - last[~steady]))

    def _tell(self, requests: Ints, span: Span) -> None:
        if self.told:
            self.told.note(requests, span)

    def lose(self, requests: Sequence[int]) -> None:
        """They have no answer; the gaps between the tokens that they had are not counted."""
        self.state[requests] = State.LOST
        for cadence, step, gap in self.told.gaps(requests) if self.told and requests else ():
            if cadence is None:
                self._uncount(step, gap)
            elif cadence.before(step + 1) - gap == cadence.before(step):
                cadence.count(step, step + 1, -1)
            else:
                self._uncount(cadence.before(step + 1), gap)

    def _uncount(self, end: int, gap: int) -> None:
        """One of the gaps that keep no beat."""
        for number, (ends, gaps) in enumerate(self._gaps):
            which = np.flatnonzero((gaps == gap) & (ends == end))
            if len(which):
                self._gaps[number] = ends, np.delete(gaps, which[0])
                return

    def take_gaps(self, gaps: Ints, ends: Ints) -> None:
        """Between tokens that kept no beat, int64[n] ps, and ps at which each ends."""
        self._gaps.append((ends, gaps))

    def gaps(self, since: int) -> tuple[Ints, Whole]:
        """Different gaps between tokens that end at `since` or later: ascending, ps, and how many of each."""
        single = [gaps[np.broadcast_to(ends, gaps.shape) >= since] for ends, gaps in self._gaps]
        alone = np.concatenate([NOBODY, *single])

        def parts() -> Iterator[tuple[Ints, Whole]]:  # of a long run there are tens of millions of steps
            yield alone, np.ones(len(alone), dtype=np.int32)
            for cadence in self.cadences:
                yield cadence.gaps(since)

        return tallied(parts)

    def count(self, state: State) -> int:
        """Requests in a state."""
        return int((self.state == state).sum())
