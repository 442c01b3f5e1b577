"""Replicas of pools that die and return: requests are retried or lost, KV leaves again, and times are a pencil's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moesim.serving import Book, Replica, Served, State
from moesim.serving.fleet import FAR, Outage
from moesim.serving.metrics import breakdown, counted, e2el, numbers
from moesim.serving.transfer import Instant
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, requests_of, split
from tests.serving.test_laws import COLUMNS, crowd
from tests.serving.test_pools import BYTES, wires

ALWAYS: Any = lambda batch: MS  # noqa: E731
STEP = BYTES * 50 * 1000 // 450  # ps: 50 tokens at NVLink's 450 GB/s


def outages(retry: bool) -> list[Outage]:
    """Each of two and two replicas dies in turn, six times in all."""
    return [Outage(k % 4, (40 + 90 * k) * MS, (120 + 90 * k) * MS, retry, k * MS) for k in range(6)]


def test_a_prompt_whose_kv_died_with_its_replica_is_computed_again() -> None:
    """Steps of 1 ms, KV takes 7.808 us. Replica 0 dies while the KV is on its way: the client has had nothing."""
    died = MS + STEP // 2
    found = split(requests_of(0, 50, 3), ALWAYS, wires(4), replicas=(2, 1), outages=[Outage(0, died)])
    book = found.book
    assert book.first.tolist() == pytest.approx([died + MS + STEP], abs=1)  # ps: a flow's end is rounded up
    assert (book.ended - book.first).tolist() == [2 * MS]
    assert (book.retried.tolist(), book.replica.tolist(), book.lost.tolist()) == ([1], [1], [0])


def test_kv_on_its_way_to_a_dead_replica_leaves_again_for_another() -> None:
    died = MS + STEP // 2
    book = split(requests_of(0, 50, 3), ALWAYS, wires(4), replicas=(1, 2), outages=[Outage(1, died)]).book
    assert book.first.tolist() == [died + STEP] and book.ended.tolist() == [died + STEP + 2 * MS]
    assert (book.retried.tolist(), book.decoder.tolist()) == ([0], [2])


def test_an_answer_goes_on_after_its_replica_died() -> None:
    """Two tokens are out when replica 1 dies: 52 tokens are computed in a step of 1 ms, then move; the third comes with
    them, the fourth and last 1 ms later.
    """
    died = MS + STEP + MS + MS // 2
    found = split(requests_of(0, 50, 4), ALWAYS, wires(4), replicas=(1, 2), outages=[Outage(1, died)])
    book, move = found.book, -(-BYTES * 52 * 1000 // 450)
    third = died + MS + move
    assert book.first.tolist() == [MS + STEP] and book.ended.tolist() == [third + MS]
    gaps, many = book.gaps(0)
    assert dict(zip(gaps.tolist(), many.tolist(), strict=True)) == {MS: 2, third - (2 * MS + STEP): 1}


def test_kv_waits_until_somebody_is_there_or_is_lost() -> None:
    for until, state in ((9 * MS, State.FINISHED), (FAR, State.LOST)):
        found = split(requests_of(0, 50, 3), ALWAYS, Instant(), outages=[Outage(1, MS // 2, until)])
        assert found.book.state.tolist() == [state]
        assert until == FAR or (found.book.first.tolist(), found.book.retried.tolist()) == ([9 * MS], [0])


@pytest.mark.parametrize("preset", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("concurrency", [0, 20])
def test_requests_and_blocks_are_conserved_at_every_instant(
    preset: str, retry: bool, ahead: bool, concurrency: int
) -> None:
    """In = coming + waiting + running + in transfer + retrying + finished + rejected + lost."""
    seen = []

    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()
            assert 0 <= one.queue.seats <= 24
        assert sum(replica.load for replica in replicas) <= book.count(State.WAITING) + book.count(State.RUNNING)
        assert sum(book.count(state) for state in State) == 160
        seen.append(book.count(State.TRANSFER))

    found = split(
        requests_of(*crowd(1, n=160), concurrency), by_tokens, wires(4), preset, blocks=(90, 90), replicas=(2, 2),
        schedulers=2, outages=outages(retry), balancer="power_of_two", watch=watch, schedule_ahead=ahead,
        max_num_seqs=24,
    )  # fmt: skip
    book = found.book
    assert book.count(State.FINISHED) + len(found.rejected) + book.count(State.LOST) == 160
    done = book.state == State.FINISHED
    assert np.array_equal(book.emitted[done], book.output[done])
    assert np.array_equal(book.cached[done], (book.prompt + book.output - 1)[done])
    assert (book.count(State.LOST) == 0) == retry and (book.retried.sum() > 0) == retry and max(seen) > 0
    assert found.fleet is not None and found.fleet.left == 0


@pytest.mark.parametrize("retry", [False, True])
def test_gaps_and_parts_of_time_add_up(retry: bool) -> None:
    """All gaps between tokens are the time from the first to the last, and the parts of a request's time its E2EL."""
    found = split(
        requests_of(*crowd(2, n=200)), by_tokens, wires(4), blocks=(120, 120), replicas=(2, 2), outages=outages(retry),
    )  # fmt: skip
    book = found.book
    done = np.flatnonzero(book.state == State.FINISHED)
    gaps, many = book.gaps(0)
    assert int(many.sum()) == int((book.output[done] - 1).sum())
    assert int((gaps * many).sum()) == int((book.ended[done] - book.first[done]).sum())
    assert sum(breakdown(found, 0, 0).values()) == pytest.approx(float(e2el(book, counted(book, 0)).mean()), rel=1e-12)


@pytest.mark.parametrize("retry", [False, True])
def test_stretches_change_nothing(retry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> Served:
        asked = requests_of(*crowd(3, n=120, gap=9.0))
        return split(asked, by_tokens, wires(4), blocks=(120, 120), replicas=(2, 2), outages=outages(retry))

    whole, single = in_stretches_and_steps(play, COLUMNS, monkeypatch)
    assert numbers(whole, 0, {}) == numbers(single, 0, {}) and (whole.book.retried.sum() > 0) == retry
