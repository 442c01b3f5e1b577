"""Replicas that die and return: nothing is lost that is not counted, and times are those of a pencil."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moesim.serving import Book, Replica, State
from moesim.serving.fleet import Outage
from moesim.serving.scaling import Scaling
from moesim.serving.scheduler import Scheduler
from tests.serving.systems import MS, by_tokens, requests_of, served
from tests.serving.test_laws import COLUMNS, PRESETS, crowd

ALWAYS: Any = lambda batch: MS  # noqa: E731


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("concurrency", [0, 20])
def test_requests_and_blocks_are_conserved_at_every_instant(
    preset: str, retry: bool, ahead: bool, concurrency: int
) -> None:
    """In = coming + waiting + running + retrying + finished + rejected + lost; those inside replicas, and held."""
    outages = [Outage(k % 2, (40 + 90 * k) * MS, (120 + 90 * k) * MS, retry, k * MS) for k in range(6)]
    retrying = []

    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()
            assert 0 <= one.queue.seats <= 24
        inside = sum(replica.load for replica in replicas)
        waiting, running = book.count(State.WAITING), book.count(State.RUNNING)
        assert inside <= waiting + running  # the others wait at the router: none is there
        assert sum(book.count(state) for state in State) == 160
        retrying.append(book.count(State.RETRYING))

    n = crowd(1, n=160)
    found = served(
        requests_of(*n, concurrency), by_tokens, preset, blocks=90, replicas=2, schedulers=2, outages=outages,
        balancer="power_of_two", watch=watch, schedule_ahead=ahead, max_num_seqs=24,
    )  # fmt: skip
    book = found.book
    assert book.count(State.FINISHED) + len(found.rejected) + book.count(State.LOST) == 160
    done = book.state == State.FINISHED
    assert np.array_equal(book.emitted[done], book.output[done])
    assert np.array_equal(book.cached[done], (book.prompt + book.output - 1)[done])
    assert (book.count(State.LOST) == 0) == retry and (book.retried.sum() > 0) == retry
    assert (max(retrying) > 0) == retry
    assert found.fleet is not None and found.fleet.left == 0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("ahead", [False, True])
def test_stretches_of_decodes_change_nothing(preset: str, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    outages = [Outage(k % 2, (97 + 211 * k) * MS + 7, (397 + 211 * k) * MS, k % 3 != 2, MS) for k in range(9)]
    case: dict[str, Any] = {"replicas": 2, "schedulers": 2, "blocks": 120, "schedule_ahead": ahead, "outages": outages}
    runs = [served(requests_of(*crowd(3, n=100, gap=12.0)), by_tokens, preset, **case)]
    monkeypatch.setattr(Scheduler, "stretch", lambda self, rows: 1)
    runs.append(served(requests_of(*crowd(3, n=100, gap=12.0)), by_tokens, preset, **case))
    for name in (*COLUMNS, "retried"):
        assert np.array_equal(*(getattr(one.book, name) for one in runs)), name
    (one, many), (other, counts) = (run.book.gaps(0) for run in runs)
    assert np.array_equal(one, other) and np.array_equal(many, counts)
    assert [(r.steps, r.busy) for r in runs[0].replicas] == [(r.steps, r.busy) for r in runs[1].replicas]
    assert runs[0].book.retried.sum() > 1


def test_a_request_is_computed_again_elsewhere_and_keeps_what_its_client_has() -> None:
    """Steps of 1 ms; one prompt, 10 tokens. Its replica dies at 4.5 ms, in the fifth step: four tokens are out. From
    6.5 ms on the other computes prompt and four tokens, in one step, of which the fifth token comes.
    """
    rows: list[tuple[list[int], list[int]]] = []

    def step(batch: Any) -> int:
        rows.append((batch.query.tolist(), batch.context.tolist()))
        return MS

    found = served(requests_of(0, 32, 10), step, replicas=2, outages=[Outage(0, 4 * MS + MS // 2, delay=2 * MS)])
    book = found.book
    assert ([36], [0]) in rows
    assert book.first[0] == MS and book.ended[0] == 6 * MS + MS // 2 + 6 * MS
    assert (book.retried[0], book.lost[0], book.replica[0]) == (1, 2 * MS, 1)
    assert sorted(zip(*(column.tolist() for column in book.gaps(0)), strict=True)) == [
        (MS, 8), (3 * MS + MS // 2, 1)
    ]  # fmt: skip
    assert [replica.steps for replica in found.replicas] == [4, 6]
    assert found.replicas[0].busy == 4 * MS + MS // 2


def test_requests_wait_at_the_router_until_one_returns() -> None:
    found = served(requests_of([0, 5 * MS], 8, 3), ALWAYS, outages=[Outage(0, 2 * MS + 1, 10 * MS)])
    assert found.book.first.tolist() == [MS, 11 * MS]
    assert found.book.ended.tolist() == [11 * MS, 13 * MS]  # of the first two tokens were out


def test_a_step_that_ends_when_the_replica_dies_is_done() -> None:
    book = served(requests_of(0, 8, 3), ALWAYS, outages=[Outage(0, 3 * MS)]).book
    assert book.state[0] == State.FINISHED and book.retried[0] == 0


def test_those_for_whom_nobody_returns_are_lost() -> None:
    found = served(requests_of([0, 5 * MS], 8, 9), ALWAYS, outages=[Outage(0, 2 * MS + 1)])
    assert found.book.state.tolist() == [State.LOST, State.LOST]


@pytest.mark.parametrize("preset", PRESETS)
def test_gaps_are_those_of_answers_alone(preset: str) -> None:
    """As many as tokens after the first ones, however many others were lost, and after how many retries."""
    outages = [Outage(k % 2, (97 + 211 * k) * MS + 7, (397 + 211 * k) * MS, k % 2 == 0, MS) for k in range(9)]
    book = served(requests_of(*crowd(3, n=100, gap=12.0)), by_tokens, preset, replicas=2, blocks=120,
                  outages=outages).book  # fmt: skip
    done = book.state == State.FINISHED
    gaps, many = book.gaps(0)
    assert book.count(State.LOST) > 3 and book.emitted[book.state == State.LOST].max() > 1
    assert many.sum() == (book.output[done] - 1).sum() and many.min() > 0
    assert (gaps * many).sum() == (book.ended[done] - book.first[done]).sum()


@pytest.mark.parametrize("concurrency", [0, 3])
def test_an_outage_after_the_last_answer_changes_nothing(concurrency: int) -> None:
    requests = requests_of(*crowd(5, n=40), concurrency)
    calm = served(requests, by_tokens, replicas=2)
    late = served(requests, by_tokens, replicas=2, outages=[Outage(0, 10**6 * MS)])
    for name in COLUMNS:
        assert np.array_equal(getattr(calm.book, name), getattr(late.book, name)), name
    assert late.fleet is not None and late.fleet.unplayed == 1


def scaling(**changes: Any) -> Scaling:
    given = {"rule": "queue", "target": 4.0, "least": 1, "most": 3, "first": 1, "every": 10, "startup": 25}
    values = {**given, "patience": 0, **changes}
    times = {key: int(values.pop(key)) * MS for key in ("every", "startup", "patience")}
    return Scaling(**{**values, **times})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rule", ["queue", "utilisation"])
@pytest.mark.parametrize("dies", [False, True])
def test_nothing_is_lost_where_replicas_come_and_go_and_stretches_change_nothing(
    preset: str, rule: str, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages = [Outage(k % 3, (97 + 211 * k) * MS + 7, (397 + 211 * k) * MS) for k in range(5)] if dies else []
    case: dict[str, Any] = {
        "replicas": 3, "schedulers": 2, "blocks": 120, "balancer": "least_outstanding", "outages": outages,
        "scaling": scaling(rule=rule, target=4.0 if rule == "queue" else 0.3),
    }  # fmt: skip
    runs = [served(requests_of(*crowd(3, n=100, gap=12.0)), by_tokens, preset, **case)]
    monkeypatch.setattr(Scheduler, "stretch", lambda self, rows: 1)
    runs.append(served(requests_of(*crowd(3, n=100, gap=12.0)), by_tokens, preset, **case))
    for name in (*COLUMNS, "retried", "replica"):
        assert np.array_equal(*(getattr(one.book, name) for one in runs)), name
    assert [(r.steps, r.busy) for r in runs[0].replicas] == [(r.steps, r.busy) for r in runs[1].replicas]
    assert runs[0].book.count(State.FINISHED) == 100
    scaler, other = (run.fleet.scalers[0] for run in runs if run.fleet)
    assert scaler.ups > 0 and scaler.downs > 0
    end = int(runs[0].book.ended.max())
    assert end <= scaler.paid(0, end) <= 3 * end and scaler.paid(0, end) == other.paid(0, end)
    assert scaler.paid(0, end) == scaler.paid(0, end // 3) + scaler.paid(end // 3, end)


def test_a_second_replica_is_started_serves_and_is_let_go() -> None:
    """Six requests of 100 steps of 1 ms come at 0: at 10 ms ceil(6 / 4) = 2 are wanted, the second serves from 35 ms
    on. One that comes at 40 ms, 10 tokens, goes there, until 50 ms; at 100 ms the six are done, and the idle second one
    is let go: it was paid for 90 ms. One of 60 tokens comes at 101 ms.
    """
    at, output = [0] * 6 + [40 * MS, 101 * MS], [100] * 6 + [10, 60]
    more: dict[str, Any] = {"balancer": "least_outstanding", "scaling": scaling(most=2)}
    found = served(requests_of(at, 1, output), ALWAYS, replicas=2, **more)
    assert found.fleet is not None
    scaler = found.fleet.scalers[0]
    assert found.book.replica.tolist() == [0] * 6 + [1, 0]
    assert (scaler.ups, scaler.downs) == (1, 1)
    assert found.book.ended.tolist() == [100 * MS] * 6 + [50 * MS, 161 * MS]
    assert scaler.paid(0, 161 * MS) == (161 + 90) * MS


def test_the_most_wanted_within_patience_is_kept() -> None:
    """The look of 90 ms is the last that wants two: with 60 ms of patience one is let go at 160 ms, not at 100 ms."""
    at, output = [0] * 6 + [101 * MS], [100] * 6 + [100]
    found = served(requests_of(at, 1, output), ALWAYS, replicas=2, scaling=scaling(most=2, patience=60))
    assert found.fleet is not None
    assert found.fleet.scalers[0].paid(0, 170 * MS) == (170 + 150) * MS


def test_all_dead_for_ever_is_no_endless_watch() -> None:
    found = served(requests_of([0, 5 * MS], 8, 9), ALWAYS, outages=[Outage(0, 2 * MS + 1)], scaling=scaling(most=1))
    assert found.book.state.tolist() == [State.LOST, State.LOST]


@pytest.mark.parametrize("preset", PRESETS)
def test_blocks_in_use_are_the_same_in_stretches(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the ends of stretches, four schedulers, whose rows go on without them; an answer's KV held before or not."""
    runs = [served(requests_of(*crowd(3, n=60, gap=12.0)), by_tokens, preset, blocks=120, schedulers=4)]
    monkeypatch.setattr(Scheduler, "stretch", lambda self, rows: 1)
    runs.append(served(requests_of(*crowd(3, n=60, gap=12.0)), by_tokens, preset, blocks=120, schedulers=4))
    lazy, stepped = ({one.end: one.blocks for one in run.replicas[0].history} for run in runs)
    assert lazy == {end: stepped[end] for end in lazy}


def test_clients_of_replicas_that_are_dead_for_ever_lose_all_their_requests() -> None:
    """A closed loop of two, and one replica that dies in the second step: what was to be sent later is lost too."""
    clients = requests_of(0, 1, np.ones(9), concurrency=2)
    found = served(clients, lambda batch: MS, outages=[Outage(0, 3 * MS // 2)])
    counts = [found.book.count(state) for state in (State.FINISHED, State.LOST)]
    assert counts == [2, 7] and found.fleet is not None and found.fleet.left == 0
