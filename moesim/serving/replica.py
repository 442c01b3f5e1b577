"""Replica: the ranks that hold one copy of the model. Each of its schedulers fills the rows of its own ranks; all of
them take a step together, those that have nothing to do with dummy rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.serving.clock import Clock
from moesim.serving.requests import Ints
from moesim.serving.scheduler import Rows, Scheduler
from moesim.step import Batch, Phase

DECODE, PREFILL, DUMMY = (int(phase) for phase in (Phase.DECODE, Phase.PREFILL, Phase.DUMMY))


@dataclass(frozen=True)
class Sample:
    """What a replica was at the end of a stretch of steps, for pictures: ps, requests that run and wait, KV blocks."""

    end: int
    running: int
    waiting: int
    blocks: int


class Replica:
    """schedulers: one for each group of `ways` ranks; ahead: steps are put together while the one before runs;
    device: the number of its first GPU among those of all replicas.
    """

    def __init__(
        self, schedulers: Sequence[Scheduler], clock: Clock, ways: int, *, ahead: bool, device: int = 0
    ) -> None:  # fmt: skip
        self.schedulers, self.clock, self._ways, self._ahead = tuple(schedulers), clock, ways, ahead
        self._device = device
        self._begun = self._ended = -1
        self._rows: tuple[Rows, ...] = ()
        self._ends: Ints = np.zeros(0, dtype=np.int64)
        self._turn = 0
        self.steps = self.busy = 0
        self.history: list[Sample] = []

    @property
    def load(self) -> int:
        """Requests that have come and are not answered."""
        return sum(one.load for one in self.schedulers)

    @property
    def running(self) -> bool:
        """A step is under way."""
        return bool(self._rows)

    def receive(self, request: int, now: int) -> str:
        """Take a request in, to the scheduler with the least to do, in turn; why it cannot be, "" if it is."""
        order = [(self._turn + number) % len(self.schedulers) for number in range(len(self.schedulers))]
        chosen = self.schedulers[min(order, key=lambda number: self.schedulers[number].load)]
        if reason := chosen.refuses(request):
            return reason
        self._turn += 1
        chosen.inbox.append((now, request))
        chosen.book.scheduler[request] = self.schedulers.index(chosen)
        return ""

    def welcome(self, request: int) -> int | None:
        """The scheduler that holds a seat and blocks for a request whose KV is to come, None where none has."""
        order = sorted(range(len(self.schedulers)), key=lambda n: self.schedulers[n].load + self.schedulers[n].expected)
        return next((number for number in order if self.schedulers[number].welcome(request)), None)

    def devices(self, scheduler: int) -> Ints:
        """int64[ways]: the GPUs of a scheduler, by number."""
        return self._device + scheduler * self._ways + np.arange(self._ways)

    def begin(self, now: int, horizon: Callable[[], int]) -> int | None:
        """Begin the next step at `now`, and those after it that begin before `horizon`, at which somebody may come,
        asked once the step is put together -> ps at which the last ends; None where there is nothing to do.
        """
        known = self._begun if self._ahead and self._ended == now else now
        rows = tuple(one.compose(now, known) for one in self.schedulers)
        soonest = horizon()
        if not any(len(one.request) for one in rows):
            return None
        self._rows = rows
        self._ends = self._play(now, soonest)
        self.steps += len(self._ends)
        self.busy += int(self._ends[-1]) - now
        self._ended = int(self._ends[-1])
        self._begun = int(self._ends[-2]) if len(self._ends) > 1 else now
        return self._ended

    def _play(self, now: int, horizon: int) -> Ints:
        """int64[steps] ps: ends of the steps."""
        most = min([one.stretch(rows) for one, rows in zip(self.schedulers, self._rows, strict=True)])
        batch = self._batch()
        now += self.clock.ps(batch)
        ends = [now]
        grows = batch.phase == DECODE
        while len(ends) < most and now < horizon:
            batch = replace(batch, context=batch.context + grows)
            now += self.clock.ps(batch)
            ends.append(now)
        return np.array(ends, dtype=np.int64)

    def _batch(self) -> Batch:
        """All rows."""
        parts = [_part(number * self._ways, self._ways, rows) for number, rows in enumerate(self._rows)]
        columns = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Batch(len(self.schedulers) * self._ways, *columns)

    def end(self) -> Ints:
        """The steps are over -> requests that are answered."""
        several = len(self._ends) > 1
        done = [
            one.settle_many(rows, self._ends) if several else one.settle(rows, self._ended)
            for one, rows in zip(self.schedulers, self._rows, strict=True)
        ]
        self._rows = ()
        self.history.append(self._sample())
        return np.concatenate(done)

    def _sample(self) -> Sample:
        queues = [one.queue for one in self.schedulers]
        running = sum(len(queue.started) + len(queue.decoding) for queue in queues)
        waiting = sum(len(one.inbox) + len(one.queue.waiting) for one in self.schedulers)
        return Sample(self._ended, running, waiting, sum(q.blocks.total - q.blocks.free for q in queues))


def _part(first: int, ways: int, rows: Rows) -> Sequence[Any]:
    """Columns rank, request, query, context, phase, emits of a scheduler's rows on its `ways` ranks, in turn; a dummy
    row on each where there are none.
    """
    many = len(rows.request)
    if not many:
        zero = np.zeros(ways, dtype=np.int64)
        return (first + np.arange(ways), zero, zero + 1, zero, np.full(ways, DUMMY, np.int8), zero > 0)
    phase = np.zeros(many, dtype=np.int8)
    phase[rows.decodes :] = PREFILL
    columns = (rows.request, rows.query, rows.context, phase, rows.ends)
    if ways == 1:
        return np.full(many, first, dtype=np.int64), *columns
    rank = first + np.arange(many) % ways
    order = np.argsort(rank, kind="stable")
    return rank[order], *(column[order] for column in columns)
