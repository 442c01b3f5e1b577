"""Replica: the ranks that hold one copy of the model. Each of its schedulers fills the rows of its own ranks; all of
them take a step together, those that have nothing to do with dummy rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.serving.book import NOBODY
from moesim.serving.cadence import NEVER, Cadence, Span, Whole
from moesim.serving.census import EXPECTED, RUNNING, USED, WAITING, Census
from moesim.serving.clock import Clock
from moesim.serving.requests import Ints
from moesim.serving.scheduler import UNLIMITED, Rows, Scheduler
from moesim.serving.speculation import spread
from moesim.serving.throttle import Throttle
from moesim.step import Batch, Phase

DECODE, PREFILL, DUMMY = (int(phase) for phase in (Phase.DECODE, Phase.PREFILL, Phase.DUMMY))


@dataclass(frozen=True)
class Sample:
    """What a replica was at the end of a stretch of steps, for pictures: ps, requests that run and wait, KV blocks."""

    end: int
    running: int
    waiting: int
    blocks: int


class History(Sequence[Sample]):
    """Samples in columns: ends int64[n] ps, states [n, 3] of whole numbers: what a Sample has beside."""

    def __init__(self, ends: Ints | None = None, states: Whole | None = None) -> None:
        self._ends: Ints = np.zeros(64, dtype=np.int64) if ends is None else ends
        self._states: Whole = np.zeros((64, len(fields(Sample)) - 1), dtype=np.int64) if states is None else states
        self._many = 0 if ends is None else len(ends)

    def __len__(self) -> int:
        return self._many

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._many))]
        return Sample(int(self._ends[: self._many][number]), *self._states[: self._many][number].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return False
        pairs = ((self._ends, other._ends), (self._states, other._states))
        return all(np.array_equal(one[: self._many], two[: other._many]) for one, two in pairs)

    __hash__ = None  # type: ignore[assignment]

    def append(self, sample: Sample) -> None:
        """One more."""
        if self._many == len(self._ends):
            self._ends, self._states = (np.concatenate((one, np.zeros_like(one))) for one in (self._ends, self._states))
        self._ends[self._many] = sample.end
        self._states[self._many] = (sample.running, sample.waiting, sample.blocks)
        self._many += 1

    def at(self, times: Ints) -> Ints:
        """int64[n, 3]: requests that run and wait, and KV blocks, as the last steps before each ps left them."""
        found: Ints = np.zeros((len(times), self._states.shape[1]), dtype=np.int64)
        last = np.searchsorted(self._ends[: self._many], times, side="right") - 1
        found[last >= 0] = self._states[last[last >= 0]]
        return found

    @property
    def most_blocks(self) -> int:
        """In use at a time."""
        return int(self._states[: self._many, -1].max(initial=0))


class Replica:
    """schedulers: one for each group of `ways` ranks; ahead: steps are put together while the one before runs;
    device: the number of its first GPU among those of all replicas.

    Of each scheduler, int64[schedulers]: _since: steps when its rows were put together, _until: after which they have
    to be again, _rows: those of its ranks, dummies among them; bool[schedulers]: _lazy: its rows go on by themselves,
    _busy: there are some but dummies, _prompts: prompts among them.
    """

    def __init__(
        self, schedulers: Sequence[Scheduler], clock: Clock, ways: int, *, ahead: bool, device: int = 0
    ) -> None:  # fmt: skip
        self.schedulers, self.clock, self.ways, self.ahead = tuple(schedulers), clock, ways, ahead
        self._device = device
        self._begun = self._ended = -1
        self._cadence = Cadence()
        many = len(self.schedulers)
        self._goes: list[Rows | None] = [None] * many  # None: to be put together
        self._since, self._until, self._rows = (np.zeros(many, dtype=np.int64) for _ in range(3))
        self._lazy, self._busy, self._prompts = (np.zeros(many, dtype=np.bool_) for _ in range(3))
        self._touched = set(range(many))  # schedulers that something has happened to since a step began
        self._census = Census(self.schedulers)
        self._parts: list[Sequence[Any]] = [() for _ in self.schedulers]
        self._held: list[Ints] = [NOBODY for _ in self.schedulers]  # blocks of each row of the parts
        self._joined: Joined | None = None
        self._turn = self.steps = self.busy = 0
        self._copying = tuple(one for one in self.schedulers if one.host)
        self.copied = 0  # ps that steps have waited for copies from and to the host
        self._throttle = Throttle(self.schedulers[0].settings, len(self.schedulers))
        self._waited = self._gathered = 0  # steps that prompts have waited for those of others, and for more
        self.running = False  # a step is under way
        self.history = History()
        self.schedulers[0].book.cadences.append(self._cadence)

    @property
    def ended(self) -> int:
        """ps of the end of its last step, NEVER before the first."""
        return self._cadence.before(len(self._cadence))

    @property
    def load(self) -> int:
        """Requests that have come and are not answered."""
        return int(self._census.loads.sum())

    def _touch(self, number: int) -> Scheduler:
        """A scheduler, to which something happens."""
        self._touched.add(number)
        self._census.change(number)
        return self.schedulers[number]

    def receive(self, request: int, now: int) -> str:
        """Take a request in, to the scheduler with the least to do, in turn; why it cannot be, "" if it is."""
        many = len(self.schedulers)
        turns = (np.arange(many) - self._turn) % many
        number = int(np.argmin(self._census.loads * many + turns))
        chosen = self._touch(number)
        if reason := chosen.refuses(request):
            return reason
        self._turn += 1
        chosen.inbox.append((now, request))
        chosen.book.scheduler[request] = number
        return ""

    def welcome(self, request: int) -> int | None:
        """The scheduler that holds a seat and blocks for a request whose KV is to come, None where none has."""
        loads = self._census.loads + self._census.of(EXPECTED)
        order: list[int] = np.argsort(loads, kind="stable").tolist()
        for number in order:
            self._catch_up(number)
            if self._touch(number).welcome(request):
                self._until[number] = len(self._cadence) + self._lasts(number)
                return number
        return None

    def land(self, number: int, request: int, now: int) -> None:
        """KV of a request that a scheduler has welcomed is there."""
        self._touch(number).land(request, now)

    def cancel(self, number: int, request: int) -> None:
        """KV of a request that a scheduler has welcomed will not come."""
        self._touch(number).cancel(request)

    def release(self, number: int, request: int) -> None:
        """KV that a scheduler has computed is elsewhere."""
        self._touch(number).release(request)

    def devices(self, scheduler: int) -> Ints:
        """int64[ways]: the GPUs of a scheduler, by number."""
        return self._device + scheduler * self.ways + np.arange(self.ways)

    def begin(self, now: int, horizon: Callable[[], int]) -> int | None:
        """Begin the next step at `now`, and those after it that begin before `horizon`, at which somebody may come,
        asked once the step is put together -> ps at which the last ends; None where there is nothing to do.
        """
        known = self._begun if self.ahead and self._ended == now else now
        new = [number for number in sorted(self._touched) if not self._lazy[number] or self.schedulers[number].news]
        for number in new:
            self._learn_steps(number)
        if self._ended != now:
            self._throttle.wakes(len(self._cadence))
        held = self._holds(new, known)
        waits = [held or self._throttle.defers(self.schedulers[number], len(self._cadence)) for number in new]
        self._compose(new, now, known, waits)
        if any(waits) and self._empty:
            self._compose(new, now, known, [False] * len(new))
        self._touched = {number for number in new if self.schedulers[number].news}
        soonest = horizon()
        if self._empty:
            self._forget_rows()
            return None
        ends = self._play(now, soonest, int(self._until.min()) - len(self._cadence))
        if self._prompts.any():
            self._throttle.prompted(len(self._cadence))
        self._cadence.add(ends)
        self.running = True
        self.steps += len(ends)
        self.busy += int(ends[-1]) - now
        self._ended = int(ends[-1])
        self._begun = int(ends[-2]) if len(ends) > 1 else now
        return self._ended

    def _compose(self, new: Sequence[int], now: int, known: int, waits: Sequence[bool]) -> None:
        """The rows of these schedulers; waits: of each, do its prompts?"""
        for number, held in zip(new, waits, strict=True):
            self._census.change(number)
            self._put(number, self.schedulers[number].compose(now, known, held=held))

    @property
    def _empty(self) -> bool:
        """Nobody has rows for the next step."""
        return not self._busy.any()

    def _forget_rows(self) -> None:
        """Every scheduler has to be asked again."""
        many = len(self.schedulers)
        self._goes, self._lazy[:], self._touched = [None] * many, False, set(range(many))

    def _holds(self, new: Sequence[int], known: int) -> bool:
        """Do prompts wait for those of other schedulers? `new` ones have to be put together; others have no prompts."""
        settings, many = self.schedulers[0].settings, len(self.schedulers)
        if many == 1 or not settings.balance_timeout:
            return False
        having = sum(self.schedulers[number].has_prompt(known) for number in new)
        if not having or not all(len(one.queue.decoding) for one in self.schedulers):
            self._waited = self._gathered = 0
            return False
        if having < many:
            self._waited = (self._waited + 1) % settings.balance_timeout
            return self._waited > 0
        self._waited, self._gathered = 0, (self._gathered + 1) % (settings.balance_wait + 1)
        return self._gathered > 0

    def _put(self, number: int, rows: Rows) -> None:
        """A scheduler's rows of the steps to come."""
        self._goes[number], self._since[number] = rows, len(self._cadence)
        self._until[number] = len(self._cadence) + self._lasts(number)
        part = self._parts[number] = _part(number * self.ways, self.ways, rows)
        self._held[number] = self.schedulers[number].blocks.held[part[1]]
        self._rows[number], self._lazy[number] = len(part[0]), True
        self._busy[number], self._prompts[number] = len(rows.request) > 0, rows.decodes < len(rows.request)
        self._joined = None

    def _lasts(self, number: int) -> int:
        """Steps that its rows go on."""
        rows = self._goes[number]
        return self.schedulers[number].stretch(rows) if rows is not None else UNLIMITED

    def _learn_steps(self, number: int) -> int:
        """A scheduler learns of the steps that its rows went on without it: so many."""
        rows, span = self._goes[number], Span(self._cadence, int(self._since[number]), len(self._cadence))
        if rows is None or span.first == span.last:
            return 0
        self._census.change(number)
        self.schedulers[number].settle_many(rows, span)
        return span.last - span.first

    def _catch_up(self, number: int) -> None:
        """The same, and its rows go on from there."""
        rows, steps = self._goes[number], self._learn_steps(number)
        if rows is not None and steps:
            self._put(number, replace(rows, context=rows.context + steps) if rows.decodes else rows)

    def _play(self, now: int, horizon: int, most: int) -> Ints:
        """int64[steps] ps: ends of the steps."""
        joined = self._join()
        if self._copying:
            waits = max(one.wait() for one in self._copying)
            self.copied += waits
            now += waits
        return self.clock.ends(joined.batch(len(self._cadence)), joined.grows, now, horizon, most)

    def _join(self) -> Joined:
        """All rows."""
        if self._joined is None:
            parts = self._parts
            columns = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
            held, size = np.concatenate(self._held), self.schedulers[0].blocks.size
            self._joined = Joined.of(len(parts) * self.ways, columns, np.repeat(self._since, self._rows), held, size)
        return self._joined

    def end(self) -> Ints:
        """The steps are over -> requests that are answered."""
        self.running, done = False, []
        for number in np.flatnonzero(self._until <= len(self._cadence)).tolist():
            rows, one = self._goes[number], self._touch(number)
            assert rows is not None
            span = Span(self._cadence, int(self._since[number]), len(self._cadence))
            done.append(one.settle_many(rows, span) if span.last - span.first > 1 else one.settle(rows, span))
            self._goes[number], self._lazy[number] = None, False
        self.history.append(self._sample())
        return np.concatenate(done) if done else NOBODY

    def fail(self, now: int) -> list[int]:
        """It dies; a step under way is lost -> requests that it had and that are not answered, in order."""
        if self.running:
            self._cadence.drop()
            self.steps -= 1
            self.busy -= self._ended - now
            self.running = False
        for number in range(len(self.schedulers)):
            self._catch_up(number)
        self._forget_rows()
        self._begun = self._ended = -1
        self.history.append(Sample(now, 0, 0, 0))
        return [request for number in range(len(self.schedulers)) for request in self._touch(number).fail()]

    def _sample(self) -> Sample:
        running, waiting, used = (int(self._census.of(column).sum()) for column in (RUNNING, WAITING, USED))
        return Sample(self._ended, running, waiting, used + self._grown())

    def played(self, ends: Ints, tokens: Whole, busy: int, history: History) -> None:
        """What a compiled loop has played for it: ends of steps int64[steps] ps, tokens that kept their beat."""
        self._cadence.take(ends, tokens)
        self.steps, self.busy, self.history = len(ends), busy, history
        self._ended = int(ends[-1]) if len(ends) else NEVER

    def kv_share(self) -> float:
        """Of its KV blocks, those in use; of rows that go on by themselves, those of the step under way too."""
        used = int(self._census.of(USED).sum())
        return (used + self._grown()) / sum(one.blocks.total for one in self.schedulers)

    def _grown(self) -> int:
        """Blocks that rows need more than they hold: they went on by themselves, their schedulers have not learned."""
        if not self._lazy.any():
            return 0
        return self._join().grown(len(self._cadence), np.repeat(self._lazy, self._rows))


@dataclass(frozen=True)
class Joined:
    """The rows of all schedulers. first: the batch as if no step had been made; grows bool[S]: a token longer with each
    step; held int64[S]: blocks of `size` tokens when a row was put together.
    """

    first: Batch
    grows: npt.NDArray[np.bool_]
    held: Ints
    size: int

    @classmethod
    def of(cls, ranks: int, columns: Sequence[Any], since: Ints, held: Ints, size: int) -> Joined:
        """columns of `_part`, contexts as of `since` int64[S], steps when a row was put together."""
        batch = Batch(ranks, *columns)
        grows = batch.phase == DECODE
        assert len(batch.routed) == len(batch.rank) and len(batch.tokens_of_rank) == len(batch.head_rows)  # kept
        return cls(batch.onward(-since * grows), grows, held, size)

    def batch(self, steps: int) -> Batch:
        """After so many steps."""
        return self.first.onward(self.grows * steps)

    def grown(self, steps: int, lazy: npt.NDArray[np.bool_]) -> int:
        """Blocks that rows need more after so many steps than when they were put together."""
        rows = lazy & self.grows
        needed = -(-(self.first.context[rows] + steps) // self.size)
        return int(np.maximum(needed - self.held[rows], 0).sum())


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
    columns: tuple[Any, ...] = (rows.request, rows.query, rows.context, phase, rows.ends)
    if rows.decodes and rows.query[0] > 1:
        columns = spread(columns, rows.decodes)
        many = len(columns[0])
    if ways == 1:
        return np.full(many, first, dtype=np.int64), *columns
    rank = first + np.arange(many) % ways
    order = np.argsort(rank, kind="stable")
    return rank[order], *(column[order] for column in columns)
