"""Pools whose replicas come and go: nothing is lost, KV is never dropped, and times are those of a pencil."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moesim.serving import Book, Replica, Served, State
from moesim.serving.fleet import Fleet, Outage
from moesim.serving.metrics import breakdown, counted, e2el, numbers
from moesim.serving.scaling import Phase
from moesim.serving.transfer import Instant
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, requests_of, split
from tests.serving.test_fleet import scaling
from tests.serving.test_laws import COLUMNS, crowd
from tests.serving.test_pools import BYTES, wires

ALWAYS: Any = lambda batch: MS  # noqa: E731


def test_the_pool_that_answers_starts_a_second_replica_and_lets_it_go() -> None:
    """Steps of 1 ms, six prompts at once at 0, KV at once: all answer from 1 ms on, 100 tokens each, on replica 1. At
    10 ms ceil(6 / 4) = 2 are wanted, replica 2 serves from 35 ms on. A prompt of 40 ms is computed by 41 ms and its
    nine other tokens come there until 50 ms; at 100 ms the six lack a token yet, at 110 ms one replica is enough.
    """
    at, output = [0] * 6 + [40 * MS, 111 * MS], [101] * 6 + [10, 60]
    own = scaling(most=2)
    more: dict[str, Any] = {"balancer": "least_outstanding", "scaling": (None, own)}
    found = split(requests_of(at, 1, output), ALWAYS, Instant(), replicas=(1, 2), **more)
    assert found.fleet is not None
    (scaler,) = found.fleet.scalers
    assert found.book.decoder.tolist() == [1] * 6 + [2, 1]
    assert found.book.ended.tolist() == [101 * MS] * 6 + [50 * MS, 171 * MS]
    assert (scaler.ups, scaler.downs, scaler.paid(0, 171 * MS)) == (1, 1, (171 + 100) * MS)
    told = numbers(found, 0, {})
    assert told["decode_mean_replicas"][0] == pytest.approx(271 / 171)
    assert "prefill_mean_replicas" not in told and told["decode_replicas_started"] == (1, "1")


def test_a_replica_that_is_let_go_is_paid_until_its_kv_has_left() -> None:
    """Replica 1 computes the second prompt in 1 ms. Its KV finds no block free in the pool that answers before 39 ms,
    and takes a while; the look of 10 ms has let the replica go, and it is paid until the KV has landed.
    """
    move = -(-BYTES * 50 * 1000 // 450)
    found = split(requests_of(0, 50, 40), ALWAYS, wires(4), blocks=(10, 6), replicas=(2, 1), scaling=(
        scaling(first=2, most=2, target=99.0), None,
    ))  # fmt: skip
    alone = split(requests_of([0, 0], 50, 40), ALWAYS, wires(4), blocks=(10, 6), replicas=(2, 1), scaling=(
        scaling(first=2, most=2, target=99.0), None,
    ))  # fmt: skip
    assert found.fleet is not None and alone.fleet is not None
    assert found.fleet.scalers[0].paid(0, 99 * MS) == (99 + 10) * MS
    book = alone.book
    assert book.departed.tolist() == [MS, int(book.ended[0])]
    left = 99 * MS - alone.fleet.scalers[0].paid(0, 99 * MS) + 99 * MS
    assert left == 99 * MS - int(book.landed[1]) and book.landed[1] - book.departed[1] == pytest.approx(move, abs=2)


def fleets(monkeypatch: pytest.MonkeyPatch) -> list[Fleet]:
    """Those that runs make from here on."""
    made: list[Fleet] = []
    begin = Fleet.__init__

    def noted(self: Fleet, *given: Any) -> None:
        made.append(self)
        begin(self, *given)

    monkeypatch.setattr(Fleet, "__init__", noted)
    return made


@pytest.mark.parametrize("preset", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("rule", ["queue", "utilisation"])
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("concurrency", [0, 20])
def test_requests_blocks_and_kv_are_conserved_at_every_instant(
    preset: str, rule: str, dies: bool, concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In = coming + waiting + running + in transfer + retrying + finished; a stopped replica has nothing, and
    stretches change nothing.
    """
    outages = [Outage(k % 5, (97 + 211 * k) * MS + 7, (397 + 211 * k) * MS) for k in range(7)] if dies else []
    own = scaling(rule=rule, target=4.0 if rule == "queue" else 0.2, most=3)
    made = fleets(monkeypatch)

    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()
        assert sum(book.count(state) for state in State) == 120
        held = np.bincount(book.replica[book.state == State.TRANSFER], minlength=6)
        for scaler in made[-1].scalers:
            for number, phase in scaler.phase.items():
                assert phase != Phase.OFF or not (held[number] or replicas[number].load)

    def play() -> Served:
        return split(
            requests_of(*crowd(3, n=120, gap=9.0), concurrency), by_tokens, wires(6), preset, blocks=(120, 120),
            replicas=(3, 3), balancer="least_outstanding", outages=outages, scaling=(own, own), watch=watch,
        )  # fmt: skip

    whole, single = in_stretches_and_steps(play, (*COLUMNS, "retried", "replica", "decoder"), monkeypatch)
    told, stepped = (numbers(one, 0, {}) for one in (whole, single))
    peaks = {name for name in told if name.endswith("kv_peak_utilisation")}  # samples at the ends of stretches
    assert all(told[name] == stepped[name] for name in told.keys() - peaks)
    assert whole.book.count(State.FINISHED) == 120 and whole.fleet is not None and whole.fleet.left == 0
    assert sum(one.ups for one in whole.fleet.scalers) > 0 and sum(one.downs for one in whole.fleet.scalers) > 0
    end = whole.end
    for scaler in whole.fleet.scalers:
        assert end <= scaler.paid(0, end) <= 3 * end
        assert scaler.paid(0, end) == scaler.paid(0, end // 3) + scaler.paid(end // 3, end)
    total = float(e2el(whole.book, counted(whole.book, 0)).mean())
    assert sum(breakdown(whole, 0, 0).values()) == pytest.approx(total, rel=1e-12)


def test_pools_that_may_not_grow_are_pools() -> None:
    """One to one replica: the clocks of a pool without a scaler, to the tick."""
    ask = requests_of(*crowd(7, n=80))
    fixed = split(ask, by_tokens, wires(4), replicas=(2, 2))
    held = scaling(least=2, most=2, first=2)
    scaled = split(ask, by_tokens, wires(4), replicas=(2, 2), scaling=(held, held))
    for name in (*COLUMNS, "replica", "decoder"):
        assert np.array_equal(getattr(fixed.book, name), getattr(scaled.book, name)), name


@pytest.mark.parametrize("dead", [0, 1])
def test_a_pool_that_is_dead_for_ever_is_no_endless_watch(dead: int) -> None:
    scales = [None, None]
    scales[1 - dead] = scaling(most=1)  # type: ignore[call-overload]
    found = split(requests_of([0, 5 * MS], 8, 9), ALWAYS, Instant(), outages=[Outage(dead, 2 * MS + 1)], scaling=scales)
    assert found.book.state.tolist() == ([State.FINISHED, State.LOST] if dead == 0 else [State.LOST, State.LOST])


def test_replicas_that_were_never_paid_are_in_no_share() -> None:
    """A pool of one that never grows tells what a pool of one does, also where replicas die that never were there. One
    that is started at 11 ms and dead from 21 to 31 ms is paid from 11 ms on, and can work but for 10 ms of that.
    """
    ask = requests_of([0, 0, 5 * MS], 8, 60)
    alone = numbers(split(ask, ALWAYS, Instant(), outages=[Outage(0, 10**6 * MS)]), 0, {})
    for outages in ((), [Outage(3, MS)], [Outage(2, MS, 9 * MS), Outage(3, MS)]):
        scales = (None, scaling(most=3, target=9.0))
        told = numbers(split(ask, ALWAYS, Instant(), replicas=(1, 3), scaling=scales, outages=outages), 0, {})
        for name in ("busy_fraction", "kv_peak_utilisation"):
            assert told[f"decode_{name}"] == alone[f"decode_{name}"], name
        assert not outages or told["down_s"] == (0.0, "s")
    scales, outages = (None, scaling(most=2, every=11, startup=0, target=2.0)), [Outage(2, 21 * MS, 31 * MS)]
    found = split(ask, ALWAYS, Instant(), replicas=(1, 2), scaling=scales, outages=outages)
    assert found.fleet is not None
    assert found.fleet.could_work(found.end, range(1, 3)) == {1: found.end, 2: found.end - 21 * MS}
    assert numbers(found, 0, {})["down_s"] == (0.01, "s")
