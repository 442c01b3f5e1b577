"""CompiledLoop: what Loop does with replicas that are always there, by one compiled function over columns.

Which replica a request goes to is still asked of its balancer, request by request, and how long steps take of the
replicas' clock. Whatever the kernel does not play stays Loop's: `unplayed` says what. Results are the same to the tick
(tests/serving/test_compiled_loop.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from moesim import streams
from moesim.compiled import interpreted
from moesim.errors import BrokenInvariant
from moesim.serving.balancer import ask_of, choose
from moesim.serving.balancer.least_outstanding import tickets
from moesim.serving.batcher import REGISTRY, decode_first, prefill_first, whole_prompts
from moesim.serving.book import Book, State
from moesim.serving.clock import Hosted
from moesim.serving.loop_blocks import ASKED, FOUND, FREE, REUSED
from moesim.serving.loop_engine import POLICIES, engine_of, unplayed_keys
from moesim.serving.loop_kernel import CHOOSE, DONE, FULL, asked, drained, played, rows_of
from moesim.serving.loop_queue import (
    ADMITTED,
    AHEAD,
    BUSY,
    CACHED,
    CHOICE,
    EMITTED,
    ENDED_AT,
    EVICTED_AT,
    FIRST_AT,
    GAPS,
    HORIZON,
    LAST_AT,
    LOAD,
    LOST,
    MOST,
    NEVER,
    NOW,
    PENDING,
    PREEMPTED,
    QUEUED_AT,
    REFUSED,
    REPLICA,
    SAMPLES,
    SCHEDULER,
    SEEN,
    SENT,
    SENT_AT,
    STARTED_AT,
    STATE,
    STEPS,
    TICKET,
)
from moesim.serving.loop_queue import State as Columns
from moesim.serving.replica import History, Replica
from moesim.step import Batch, Phase

FEWEST: Final = 1000  # requests, below which a compiler takes longer than the readable loop
FILLS: Final = dict(zip(POLICIES, (decode_first.fill, prefill_first.fill, whole_prompts.fill), strict=True))
COLUMNS: Final = {
    "sent": SENT_AT, "queued": QUEUED_AT, "started": STARTED_AT, "first": FIRST_AT, "last": LAST_AT,
    "ended": ENDED_AT, "evicted": EVICTED_AT, "cached": CACHED, "emitted": EMITTED, "admitted": ADMITTED,
    "lost": LOST, "preempted": PREEMPTED, "state": STATE, "replica": REPLICA, "scheduler": SCHEDULER,
}  # fmt: skip


def unplayed(book: Book, replicas: Sequence[Replica]) -> str:
    """What of these the kernel does not play, "" for nothing."""
    first = replicas[0].schedulers[0]
    settings = first.settings
    reasons = {
        "kernels are interpreted": interpreted(),
        "clients wait for their answers": bool(book.requests.concurrency),
        "requests follow others": book.requests.follows is not None,
        "a setting": bool(unplayed_keys(settings)),
        "answers are others' beginnings": book.requests.prefixes is not None and book.requests.prefixes.answers,
        f"policy {settings.policy}": FILLS.get(settings.policy) is not REGISTRY[settings.policy].fill,
        "replicas differ": any(_kind(one) != _kind(replicas[0]) for one in replicas),
        "answers are another pool's": first.hands_over,
        "steps wait for stages": bool(book.inside),
        "KV goes to the host": first.host is not None,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _kind(replica: Replica) -> tuple[object, ...]:
    """What has to be the same of all."""
    schedulers = {(one.settings, one.blocks.total, one.hands_over) for one in replica.schedulers}
    return id(replica.clock), len(replica.schedulers), replica.ways, replica.ahead, len(schedulers), *schedulers


class CompiledLoop:
    """Requests that come by themselves, and alike replicas; front: ps from a client to the replicas."""

    def __init__(self, book: Book, replicas: Sequence[Replica], balancer: str, front: int, seed: int) -> None:
        self._book, self._replicas, self._balancer = book, tuple(replicas), balancer
        self._rng = streams.stream(seed, "serving", "balancer")
        self._clock, self._ways = replicas[0].clock, replicas[0].ways
        one, many = replicas[0].schedulers[0], len(replicas[0].schedulers)
        layers = self._clock.layers if isinstance(self._clock, Hosted) else 0
        prefixes = book.requests.prefixes if one.settings.prefix_cache else None
        engine = engine_of(
            one.settings, layers, many, one.blocks.total, closed=False, cache=prefixes is not None, balancer=balancer
        )
        self._engine = engine._replace(front=front, ahead=int(replicas[0].ahead))
        requests = book.requests
        self._columns = Columns.of_requests(
            requests.prompt,
            requests.output,
            len(replicas),
            many,
            one.blocks.total,
            one.settings.max_num_seqs,
            one.settings.block_size,
            prefixes,
        )
        self._columns.clock[SENT] = len(requests)
        self._columns.of[:, SENT_AT] = requests.arrival
        self._columns.of[:, TICKET] = tickets(np.arange(len(requests)))
        self.rejected = self._refused()
        self._columns.of[list(self.rejected), REPLICA] = REFUSED

    def _refused(self) -> dict[int, str]:
        """Requests that can never run -> why; schedulers are alike."""
        one = self._replicas[0].schedulers[0]
        said = ((request, one.refuses(request)) for request in range(len(self._book.requests)))
        return {request: reason for request, reason in said if reason}

    def serve(self) -> dict[int, str]:
        """Until every request is answered or rejected: rejected -> why. Book and replicas say what happened."""
        while (why := self._advance()) != DONE:
            if why == FULL:
                self._columns = self._columns.roomier()
            elif why == CHOOSE:
                self._choose()
            else:
                self._price()
        self._check_blocks()
        self._write_book()
        for number, replica in enumerate(self._replicas):
            self._write_replica(number, replica)
        return self.rejected

    def _advance(self) -> int:
        return int(asked(self._columns, self._engine))

    def _choose(self) -> None:
        """Which replica the next request goes to."""
        clock = self._columns.clock
        ask = ask_of(self._book.requests, int(clock[SEEN]))
        clock[CHOICE] = choose(self._balancer, self._columns.own[:, LOAD].tolist(), ask, self._rng)

    def _price(self) -> None:
        """How long the steps take that are put together."""
        replica = int(self._columns.clock[PENDING])
        own, now = self._columns.own[replica], int(self._columns.clock[NOW])
        batch = self._batch(replica)
        grows = batch.phase == Phase.DECODE
        ends = self._clock.ends(batch, grows, now, int(own[HORIZON]), int(own[MOST]))
        self._columns = self._columns.with_room(int(own[STEPS] + own[AHEAD]) + len(ends))
        played(self._columns, replica, ends)

    def _batch(self, replica: int) -> Batch:
        """The step that a replica has put together, or goes on with."""
        many = self._engine.many * max(self._columns.decoding.shape[1], self._ways)
        rows = np.empty((6, min(many, 1 << 12)), dtype=np.int64)
        while (count := rows_of(self._columns, self._engine, replica, self._ways, rows)) < 0:
            rows = np.empty((6, 2 * rows.shape[1]), dtype=np.int64)
        rank, request, query, context, phase, emits = rows[:, :count]
        ranks = self._engine.many * self._ways
        return Batch(ranks, rank, request, query, context, phase.astype(np.int8), emits.astype(np.bool_))

    def _check_blocks(self) -> None:
        """Raises BrokenInvariant where some were lost or made up."""
        drained(self._columns, self._engine)
        if lost := int((self._engine.blocks - self._columns.kept[:, FREE]).sum()):
            raise BrokenInvariant(f"{lost} KV blocks were never returned")

    def _write_book(self) -> None:
        book, of, clock = self._book, self._columns.of, self._columns.clock
        refused = list(self.rejected)
        of[refused, REPLICA], of[refused, STATE] = NEVER, State.REJECTED
        for name, column in COLUMNS.items():
            getattr(book, name)[:] = of[:, column]
        book.reused[:] = self._columns.has[:, REUSED]
        gaps = self._columns.gaps[: clock[GAPS]]
        book.take_gaps(gaps[:, 0], gaps[:, 1])

    def _write_replica(self, number: int, replica: Replica) -> None:
        columns, own, many = self._columns, self._columns.own[number], self._engine.many
        for one, kept in zip(replica.schedulers, columns.kept[number * many :], strict=False):
            one.blocks.asked, one.blocks.found = int(kept[ASKED]), int(kept[FOUND])
        steps = int(own[STEPS])
        samples = slice(int(own[SAMPLES]))
        history = History(columns.sampled[number, samples], columns.samples[number, samples])
        replica.played(columns.ends[number, :steps], columns.beats[number, :steps], int(own[BUSY]), history)
