"""Stages: queues before the replicas by closed forms, work inside steps by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.serving import Book, Served
from moesim.serving.fleet import FAR, Outage
from moesim.serving.metrics import breakdown, e2el, numbers
from moesim.serving.stages import Inside, Line, Stage
from moesim.step import Batch, Phase
from tests.serving.systems import MS, by_tokens, requests_of, served


def stage(ms: float, servers: int = 1, name: str = "one", where: Literal["before", "per_token"] = "before") -> Stage:
    return Stage(name, where, servers, lambda tokens: round(ms * MS))


def lined(arrival: Any, *stages: Stage) -> Line:
    """Requests that go through stages, in the order of time."""
    requests = requests_of(arrival, 1, 1)
    line = Line(stages, Book(requests))
    events = [(int(at), number) for number, at in enumerate(requests.arrival)]
    while events:
        events.sort()
        now, request = events.pop(0)
        if (leaves := line.enter(request, now)) is not None:
            events.append((leaves, request))
    return line


def test_one_server_waits_as_m_d_1_does() -> None:
    """Pollaczek-Khinchine: rho S / (2 (1 - rho)), of 20,000 arrivals at 60 % within 4 standard errors of batches."""
    arrival = np.cumsum(np.random.default_rng(5).exponential(10 * MS / 0.6, 20_000)).astype(np.int64)
    line = Line([stage(10)], Book(requests_of(arrival, 1, 1)))
    for request, now in enumerate(arrival.tolist()):
        line.enter(request, now)
    waits = (line.left - line.came)[0] / MS - 10
    batches = waits.reshape(40, -1).mean(axis=1)
    assert abs(waits.mean() - 0.6 * 10 / (2 * 0.4)) < 4 * batches.std() / np.sqrt(40)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 9))
def test_no_more_are_served_at_a_time_than_there_are_servers(gaps: list[int], servers: int, takes: int) -> None:
    """And who waits does so because all are busy: first come, first served, nobody idle."""
    line = lined(np.cumsum(gaps) * MS, stage(takes, servers))
    ends = line.left[0]
    begins = ends - takes * MS
    assert np.all(np.diff(begins) >= 0) and np.all(begins >= line.came[0])
    for request, (came, begin) in enumerate(zip(line.came[0], begins, strict=True)):
        assert ((begins <= begin) & (ends > begin))[:request].sum() < servers or not takes
        if begin > came:
            assert ((begins < begin) & (ends >= begin)).sum() >= servers


def test_stages_follow_each_other() -> None:
    """Two of 3 and 5 ms: of two requests at once, the second leaves the slower one 5 ms after the first."""
    line = lined([0, 0], stage(3, name="a"), stage(5, name="b"))
    assert line.left.tolist() == [[3 * MS, 6 * MS], [8 * MS, 13 * MS]] and line.busy == [6 * MS, 10 * MS]


def ended(found: Served) -> list[int]:
    return list(found.book.ended.tolist())


def crowd(n: int = 30) -> Any:
    rng = np.random.default_rng(2)
    return requests_of(np.sort(rng.integers(0, 60 * MS, n)), rng.integers(1, 900, n), rng.integers(1, 9, n))


@pytest.mark.parametrize("servers", [0, 1, 10**6])
def test_a_stage_that_takes_nothing_changes_nothing(servers: int) -> None:
    assert ended(served(crowd(), by_tokens, stages=[stage(0, servers)])) == ended(served(crowd(), by_tokens))


def test_a_stage_without_a_queue_is_a_later_arrival() -> None:
    """As many servers as requests: everything happens so many ms later."""
    late = served(crowd(), by_tokens, stages=[stage(7, 30)])
    assert (np.array(ended(late)) - ended(served(crowd(), by_tokens)) == 7 * MS).all()
    parts = breakdown(late, 0, 0)
    assert parts["stages_s"] == pytest.approx(7e-3)
    assert sum(parts.values()) == pytest.approx(e2el(late.book, np.arange(30)).mean(), rel=1e-12)


def test_clients_and_replicas_that_die_pass_a_stage_once() -> None:
    """A closed loop of one: 4 + 1 ms each. A replica that dies: its requests do not go through the stage again."""
    alone = served(requests_of(0, 1, np.ones(3), concurrency=1), lambda batch: MS, stages=[stage(4)])
    assert ended(alone) == [5 * MS, 10 * MS + 1, 15 * MS + 2]
    died = served(requests_of(0, 1, 1), lambda batch: 9 * MS, replicas=2, stages=[stage(4)],
                  outages=[Outage(0, 6 * MS, FAR, True, 0)])  # fmt: skip
    assert ended(died) == [15 * MS] and died.line is not None and died.line.busy == [4 * MS]


def test_steps_wait_for_stages_on_their_own_devices() -> None:
    """Two prompts of 600 in chunks of 800: each has its 5 ms in the step it begins in, once."""
    steps: list[int] = []

    def step(batch: Batch) -> int:
        steps.append(len(batch.rank))
        return MS

    found = served(requests_of(0, 600, 1), step, max_num_batched_tokens=800, max_num_seqs=8, stages=[stage(5, 0)])
    assert ended(found) == [6 * MS]
    both = served(requests_of([0, 0], 600, 1), step, max_num_batched_tokens=800, max_num_seqs=8, stages=[stage(5, 0)])
    assert ended(both) == [11 * MS, 12 * MS] and both.book.inside[0].busy == [10 * MS]


def test_work_per_token_is_of_every_step() -> None:
    """An answer of 4 tokens: four steps of 1 ms and 1 ms for each token of a step, 10 and then 1."""
    each = Stage("reroute", "per_token", 0, lambda tokens: tokens * MS)
    found = served(requests_of(0, 10, 4), lambda batch: MS, stages=[each])
    assert ended(found) == [(4 + 10 + 3) * MS]
    assert numbers(found, 0, {})["stage_reroute_work_s"][0] == pytest.approx(13e-3)


def test_parts_of_time_add_up_beyond_the_range_of_64_bits() -> None:
    """Twelve wait 1e6 s in each other's company: 1.2e7 s together, where int64 holds 9.2e6 s of ps."""
    late = served(requests_of(np.zeros(12), 1, 1), by_tokens, stages=[stage(10**9, 12)])
    parts = breakdown(late, 0, 0)
    assert parts["stages_s"] == pytest.approx(1e6) and sum(parts.values()) == pytest.approx(
        e2el(late.book, np.arange(12)).mean(), rel=1e-12
    )


def test_a_prompt_that_is_computed_again_has_passed_its_stage_on_the_replica() -> None:
    inside = Inside([Stage("x", "before", 0, lambda tokens: MS)], Book(requests_of(0, 100, [5, 5])), 1)
    first = Batch.of(1, 0, [0], 60, 0, Phase.PREFILL)
    assert [inside.ps(first), inside.ps(replace(first, context=first.context + 60)), inside.ps(first)] == [MS, 0, 0]
    assert inside.ps(Batch.of(1, 0, [0, 1], 60, 0, Phase.PREFILL)) == MS  # the other's
    assert inside.busy == [2 * MS]


def test_dead_replicas_are_not_idle_and_lost_work_is_within_the_time_that_is_told() -> None:
    """One of two replicas is dead from its second step on; the other works on to the end."""
    found = served(requests_of(0, 1, np.full(4, 10)), lambda batch: MS, outages=[Outage(1, 3 * MS // 2)], replicas=2)
    busy = numbers(found, 0, {})["busy_fraction"][0]
    assert found.end >= found.book.ended.max()
    assert busy == pytest.approx(sum(one.busy for one in found.replicas) / (found.end + 3 * MS // 2))
    assert 0.9 < busy <= 1
