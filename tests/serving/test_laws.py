"""Laws of the serving loop: nothing is lost, areas equal times, queues wait as theory says, short cuts are exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moesim.errors import BrokenInvariant
from moesim.serving import Book, Replica, Served, State, balancer
from moesim.serving.scheduler import Scheduler
from moesim.step import Batch, Phase
from tests.serving.systems import MS, by_tokens, requests_of, served

PRESETS = ("vllm", "sglang", "trtllm", "vllm_dp_ep")
COLUMNS = ("sent", "queued", "started", "first", "last", "ended", "emitted", "cached", "preempted", "lost", "state")


def crowd(seed: int, n: int = 300, gap: float = 4.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrivals `gap` ms apart on average, prompts and answers of all kinds of lengths."""
    draw = np.random.default_rng(seed)
    return np.cumsum(draw.exponential(gap * MS, n)).astype(int), draw.integers(1, 900, n), draw.integers(1, 60, n)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("ahead", [False, True])
def test_requests_and_blocks_are_conserved_at_every_instant(preset: str, ahead: bool) -> None:
    seen = []

    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()
            assert one.queue.seats >= 0
        inside = sum(replica.load for replica in replicas)
        states = [book.count(state) for state in State]
        assert sum(states) == len(book.requests)
        assert inside == states[State.WAITING] + states[State.RUNNING]
        seen.append(now)

    found = served(
        requests_of(*crowd(1, n=160)), by_tokens, preset, blocks=90, replicas=2, schedulers=2, balancer="power_of_two",
        watch=watch, schedule_ahead=ahead, max_num_seqs=24,
    )  # fmt: skip
    assert seen == sorted(seen)
    book = found.book
    assert book.count(State.FINISHED) + len(found.rejected) == 160
    done = book.state == State.FINISHED
    assert np.array_equal(book.emitted[done], book.output[done])
    assert np.array_equal(book.cached[done], (book.prompt + book.output - 1)[done])
    assert np.all(book.sent[done] <= book.started[done]) and np.all(book.started[done] < book.first[done])
    assert np.all(book.first[done] <= book.ended[done])
    assert (preset != "vllm") or book.preempted.sum() > 0, "the case is meant to run short of blocks"


def test_littles_law_is_exact_from_empty_to_empty() -> None:
    """The area under the number of requests in the system is the sum of their times, in whole picoseconds."""
    book = served(requests_of(*crowd(2)), by_tokens).book
    at = np.concatenate((book.sent, book.ended))
    order = np.argsort(at, kind="stable")
    inside = np.cumsum(np.repeat((1, -1), len(book.sent))[order])
    area = sum(int(n) * int(t) for n, t in zip(inside[:-1], np.diff(at[order]), strict=True))
    assert inside[-1] == 0
    assert area == int((book.ended - book.sent).sum())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("ahead", [False, True])
def test_stretches_of_decodes_change_nothing(preset: str, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case: dict[str, Any] = {"replicas": 2, "schedulers": 2, "blocks": 120, "schedule_ahead": ahead, "poll_interval": 3}
    runs: list[Served] = [served(requests_of(*crowd(3, n=100, gap=25.0)), by_tokens, preset, **case)]
    assert sum(len(one.history) for one in runs[0].replicas) < sum(one.steps for one in runs[0].replicas)
    monkeypatch.setattr(Scheduler, "stretch", lambda self, rows: 1)
    runs.append(served(requests_of(*crowd(3, n=100, gap=25.0)), by_tokens, preset, **case))
    for name in COLUMNS:
        assert np.array_equal(*(getattr(one.book, name) for one in runs)), name
    (one, many), (other, counts) = (run.book.gaps(0) for run in runs)
    assert np.array_equal(one, other) and np.array_equal(many, counts)
    assert [r.steps for r in runs[0].replicas] == [r.steps for r in runs[1].replicas]


def test_prompts_wait_until_each_scheduler_has_one() -> None:
    """Steps of 1 ms; both decode when a prompt comes to one of them at 4.5 ms: it waits 6 steps of its timeout of 7, or
    until the other has one too, at 7.5 ms, and then 2 steps more.
    """
    waits: dict[str, Any] = {"schedulers": 2, "balance_timeout": 7, "balance_wait": 2}
    at = [0, 0, 9 * MS // 2]
    alone = served(requests_of(at, 10, 40), lambda batch: MS, **waits).book
    both = served(requests_of([*at, 15 * MS // 2], 10, 40), lambda batch: MS, **waits).book
    none = served(requests_of(at, 10, 40), lambda batch: MS, schedulers=2).book
    assert (none.started[2], alone.started[2]) == (5 * MS, 11 * MS)
    assert both.started[2:].tolist() == [10 * MS, 10 * MS]


def test_other_replicas_cut_no_stretch() -> None:
    """Who comes by himself does not ask what others have ended: a request alone on its replica is three stretches at
    most, its prompt and what comes before and after the other's arrival.
    """
    replicas = served(requests_of([0, MS], 10, 300), by_tokens, replicas=2).replicas
    assert [one.steps for one in replicas] == [300, 300] and max(len(one.history) for one in replicas) <= 3


def test_a_budget_beyond_every_prompt_cuts_none() -> None:
    arrival, prompt, output = crowd(4, gap=200.0)
    chunked, whole = (
        served(requests_of(arrival, prompt, output), by_tokens, policy=policy, reserved_output=1.0,
               max_num_batched_tokens=10**6)
        for policy in ("decode_first", "whole_prompts")
    )  # fmt: skip
    for name in COLUMNS:
        assert np.array_equal(getattr(chunked.book, name), getattr(whole.book, name)), name


def test_chunks_of_a_prompt_add_up() -> None:
    """One prompt of 1,000 tokens in a budget of 300: four steps, 300, 300, 300, 100; then nine tokens one by one."""
    steps: list[tuple[int, int]] = []

    def step(batch: Batch) -> int:
        steps.append((batch.tokens, int(batch.context[0])))
        return MS

    book = served(requests_of(0, 1000, 10), step, max_num_batched_tokens=300, max_num_seqs=10).book
    assert steps[:4] == [(300, 0), (300, 300), (300, 600), (100, 900)]
    assert steps[4:] == [(1, 1000 + n) for n in range(9)]
    assert (book.first[0], book.ended[0]) == (4 * MS, 13 * MS)


def waits(arrivals: np.ndarray, service: np.ndarray) -> float:
    """Mean wait before service, ms, of one server: a step is one request's prompt, as long as it says."""
    requests = requests_of(arrivals, np.maximum(service, 1), 1)
    found = served(
        requests, lambda batch: int(batch.query.sum()) * 10**6, policy="whole_prompts", reserved_output=1.0,
        max_num_seqs=1, max_num_batched_tokens=1 << 22, block_size=1 << 14,
    )  # fmt: skip
    return float((found.book.started - found.book.sent).mean()) / MS


@pytest.mark.parametrize(("law", "cv2"), [("M/M/1", 1.0), ("M/D/1", 0.0), ("M/G/1", 0.25)])
def test_one_server_waits_as_theory_says(law: str, cv2: float) -> None:
    """Pollaczek-Khinchine: Wq = rho / (1 - rho) (1 + cv^2) / 2 services; at rho = 0.6, 25 runs of 1,000 requests, from
    an empty system, whose beginning is left out; the mean within 99.9 % of the runs' own spread.
    """
    rho, mean, n, runs = 0.6, 10_000, 1000, 25
    found = []
    for seed in range(runs):
        draw = np.random.default_rng([seed, int(cv2 * 100)])
        service = np.full(n, mean) if cv2 == 0 else np.rint(draw.gamma(1 / cv2, mean * cv2, n)).astype(int)
        arrivals = np.rint(np.cumsum(draw.exponential(mean / rho, n)) * 10**6).astype(int)
        found.append(waits(arrivals, service))
    expected = rho / (1 - rho) * (1 + cv2) / 2 * mean / 1000
    half = 3.745 * float(np.std(found, ddof=1)) / np.sqrt(runs)  # Student's t at 99.9 %, 24 degrees of freedom
    assert half < 0.2 * expected
    assert abs(float(np.mean(found)) - expected) < half + 0.01 * expected, law  # 1 %: the empty beginning


def test_ahead_a_request_misses_the_step_that_is_put_together_already() -> None:
    """Steps of 1 ms from 0 on; a second request comes at 0.5 ms: it joins at 1 ms, or a step later."""
    for ahead, first in ((False, 2), (True, 3)):
        book = served(requests_of([0, MS // 2], 10, [10, 2]), lambda batch: MS, schedule_ahead=ahead).book
        assert book.first[1] == first * MS


def test_new_requests_are_looked_at_every_so_many_steps() -> None:
    book = served(requests_of([0, MS // 2], 10, [20, 2]), lambda batch: MS, poll_interval=5).book
    assert book.first[1] == 6 * MS


def test_an_evicted_request_is_computed_again_and_ends() -> None:
    """Two prompts of 32 fill 4 of 6 blocks of 16; both want to grow to 64: one loses its cache, and comes back."""
    rows: list[tuple[list[int], list[int]]] = []

    def step(batch: Batch) -> int:
        rows.append((batch.query.tolist(), batch.phase.tolist()))
        return MS

    found = served(requests_of([0, 0], 32, 33), step, blocks=6)
    book = found.book
    assert book.preempted.tolist() == [0, 1]
    again = next(query for query, phase in rows[1:] if Phase.PREFILL in phase)
    assert again == [32 + 17]  # the 16 decoded tokens of two more blocks, and the first of the prompt's step
    assert book.count(State.FINISHED) == 2
    assert book.lost[1] == book.ended[0] - 17 * MS


def test_closed_loop_keeps_so_many_under_way() -> None:
    book = served(requests_of(np.zeros(50), 10, 5, 4), lambda batch: MS).book
    assert book.count(State.FINISHED) == 50
    at = np.unique(book.sent)
    under_way = [(int(((book.sent <= t) & (book.ended > t)).sum())) for t in at]
    assert set(under_way[:-1]) == {4}


def test_balancers_share_the_work() -> None:
    arrival, prompt, output = crowd(5, n=200, gap=3.0)
    for rule in ("round_robin", "least_outstanding", "power_of_two"):
        book = served(requests_of(arrival, prompt, output), by_tokens, replicas=4, balancer=rule).book
        shares = np.bincount(book.replica, minlength=4)
        assert shares.min() > 30, rule
    assert np.ptp(np.bincount(served(requests_of(arrival, prompt, output), by_tokens, replicas=4).book.replica)) == 0


def test_what_can_never_run_is_rejected_and_told() -> None:
    found = served(requests_of(0, [10, 500, 10], [5, 5, 400]), by_tokens, blocks=20)
    assert found.rejected[1].startswith("500 + 5 tokens, the KV cache holds 320")
    assert set(found.rejected) == {1, 2}
    found = served(requests_of(0, [10, 9000], 5), by_tokens, "trtllm")
    assert "9000" in found.rejected[1] and "not cut" in found.rejected[1]


def test_a_balancer_that_picks_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(balancer.REGISTRY, "lost", lambda loads, ask, rng: len(loads))
    with pytest.raises(BrokenInvariant, match="balancer lost picks replica 2 of 2"):
        balancer.choose("lost", [0, 0], balancer.Ask(0, -1), np.random.default_rng(0))
