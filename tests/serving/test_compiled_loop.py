"""The compiled loop is Loop with the same replicas and clock, to the tick, whatever engine and requests do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.serving import Requests, Scheduler, Served, Settings, balancer, run
from moesim.serving.batcher import REGISTRY, Policy
from moesim.serving.loop_engine import READABLE
from moesim.serving.prefixes import Documents, Hashed
from moesim.studies.serving import load_serving
from moesim.studies.serving.build import build_serving
from tests.serving.systems import MS, by_tokens, requests_of, served

COLUMNS = (
    "state", "cached", "emitted", "lost", "preempted", "retried", "reused", "admitted", "sent", "queued", "started",
    "first", "last", "ended", "evicted", "replica", "scheduler", "decoder",
)  # fmt: skip


def both(requests: Requests, *arguments: Any, **case: Any) -> tuple[Served, Served]:
    """Compiled and readable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "FEWEST", 1)
        compiled = served(requests, *arguments, **case)
        patch.setattr(run, "FEWEST", 1 << 40)
        return compiled, served(requests, *arguments, **case)


def schedulers(served: Served) -> list[Scheduler]:
    return [one for replica in served.replicas for one in replica.schedulers]


def assert_same(one: Served, other: Served) -> None:
    for name in COLUMNS:
        assert getattr(one.book, name).tolist() == getattr(other.book, name).tolist(), name
    assert [side.tolist() for side in one.book.gaps(0)] == [side.tolist() for side in other.book.gaps(0)]
    assert one.rejected == other.rejected
    for side, twin in zip(schedulers(one), schedulers(other), strict=True):
        assert (side.blocks.asked, side.blocks.found) == (
            twin.blocks.asked,
            twin.blocks.found,
        ) or not one.book.requests.prefixes
    for left, right in zip(one.replicas, other.replicas, strict=True):
        assert (left.steps, left.busy) == (right.steps, right.busy)
        assert left.history == right.history


def documents(random: np.random.Generator, prompt: Any) -> Documents:
    """A few texts, of which prompts have a part, all of it or none."""
    return Documents(random.integers(0, 4, len(prompt)), random.integers(0, prompt + 1))


def hashes(random: np.random.Generator, prompt: Any) -> Hashed:
    """Texts that branch off: the hash of a part is that of all before it, and of one of two ways to go on."""
    begin = np.cumsum(np.append(0, -(-prompt // 64)))
    rows = [
        np.cumsum(random.integers(0, 2, size) << np.arange(size) % 40) * 9 + np.arange(size) for size in np.diff(begin)
    ]
    return Hashed(begin, np.concatenate(rows), prompt, 64)


PREFIXES: tuple[Callable[..., Any], ...] = (lambda random, prompt: None, documents, hashes)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Requests, dict[str, Any]]:
    seed, n = draw(st.integers(0, 2**32)), draw(st.integers(1, 70))
    random = np.random.default_rng(seed)
    gap = draw(st.sampled_from((0.0, 2.0, 8.0, 60.0)))
    arrival = np.cumsum(random.exponential(gap * MS, n)).astype(np.int64)
    prompt = random.integers(1, 500, n)
    requests = replace(
        requests_of(arrival, prompt, random.integers(1, 50, n)),
        prefixes=draw(st.sampled_from(PREFIXES))(random, prompt),
    )
    case = {
        "preset": draw(st.sampled_from(("vllm", "sglang", "trtllm", "vllm_dp_ep"))),
        "replicas": draw(st.integers(1, 3)),
        "schedulers": draw(st.integers(1, 3)),
        "balancer": draw(st.sampled_from(sorted(balancer.REGISTRY))),
        "blocks": draw(st.sampled_from((36, 60, 10**6))),
        "schedule_ahead": draw(st.booleans()),
        "max_num_seqs": draw(st.sampled_from((2, 5, 64))),
        "max_num_batched_tokens": draw(st.sampled_from((64, 300, 512, 8192))),
        "poll_interval": draw(st.sampled_from((1, 3, 20))),
        "balance_timeout": draw(st.sampled_from((0, 0, 5))),
        "balance_wait": draw(st.sampled_from((0, 2))),
    }  # fmt: skip
    if case["preset"] != "trtllm":
        case["reserved_output"] = draw(st.sampled_from((0.0, 0.4, 1.0)))
    return requests, case


@settings(max_examples=60, deadline=None)
@given(cases())
def test_is_the_loop_to_the_tick(case: tuple[Requests, dict[str, Any]]) -> None:
    requests, system = case
    assert_same(*both(requests, by_tokens, system.pop("preset"), **system))


def test_who_can_never_run_is_rejected_with_the_same_words() -> None:
    """A prompt beyond the cache, alone and among others, with one replica and with two."""
    requests = requests_of([0, 5 * MS, 6 * MS, 9 * MS], [10, 5000, 20, 6000], 5)
    for replicas in (1, 2):
        one, other = both(requests, by_tokens, blocks=100, replicas=replicas, balancer="power_of_two")
        assert_same(one, other)
        assert one.rejected == {
            1: "5000 + 5 tokens, the KV cache holds 1600",
            3: "6000 + 5 tokens, the KV cache holds 1600",
        }


def test_a_policy_that_it_does_not_know_is_played_by_the_readable_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of somebody's own, under a name that is there: one prompt a step."""

    def one_by_one(tray: Any) -> None:
        fill(tray)
        seen.append(len(tray.chunks))

    seen: list[int] = []
    fill: Callable[[Any], None] = REGISTRY["decode_first"].fill
    monkeypatch.setitem(REGISTRY, "decode_first", Policy(one_by_one, True))
    both(requests_of([0, MS], 10, 5), by_tokens)
    assert seen


def scenario(renew: str, changed: str, slowdown: float = 1.1) -> tuple[Any, Served]:
    """A shipped one of two replicas, some of it -> its clock and log, and what happened."""
    engine = f"{{preset: vllm_dp_ep, graph_batch: 4, eager_time_per_layer: 0.05 ms, prompt_slowdown: {slowdown}}}"
    changes = ("replicas=2", "requests.number=150", "requests.arrivals={poisson: {rate: 150/s}}", f"scheduler={engine}")
    built = build_serving(load_serving("qwen3-serve", [*changes, f"routing.renew={renew}", changed]), 0)
    clock, (requests, _) = built.clock(), built.scenario.requests.draw(0)
    found = run.serve(requests, lambda book: built.replicas(book, clock))
    uses = {shape: kept.uses for shape, kept in clock.kept.items()}
    return (clock.counted, uses, built.log.asked, built.log.outside, built.log.basis), found


@pytest.mark.parametrize(
    ("renew", "schedule"),
    [("1", "comm.dispatch_dtype=fp8"), ("3", "comm.dispatch_dtype=bf16"), ("never", "comm.dispatch_dtype=bf16"),
     ("5", "overlap.schedule=two_batch"), ("3", "overlap.interference=1.5")],
)  # fmt: skip
def test_steps_that_it_prices_are_the_paces(renew: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups, renewals and questions to the profile too; parts side by side are no sum: the Pace is always asked."""
    monkeypatch.setattr(run, "FEWEST", 1)
    asked, one = scenario(renew, schedule)
    assert asked[0].steps > 0
    monkeypatch.setattr(run, "FEWEST", 1 << 40)
    expected, other = scenario(renew, schedule)
    assert asked == expected
    assert_same(one, other)


@pytest.mark.parametrize("slowdown", [1.0, 1.5, 100.0])
@pytest.mark.parametrize("lengths", ["output_length=1", "input_length=1"])
def test_steps_of_prompts_alone_and_of_few_tokens_are_slowed_too(
    lengths: str, slowdown: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is decoded beside them; or a step has the same routing with its prompts and without."""
    monkeypatch.setattr(run, "FEWEST", 1)
    asked, one = scenario("3", f"requests.{lengths}", slowdown)
    monkeypatch.setattr(run, "FEWEST", 1 << 40)
    expected, other = scenario("3", f"requests.{lengths}", slowdown)
    assert asked == expected
    assert_same(one, other)


def test_each_setting_is_played_or_refused() -> None:
    """A new key of Settings is the kernel's too, or one of those that only the readable loop plays."""
    played = {
        "policy", "max_num_batched_tokens", "max_num_seqs", "block_size", "reserved_output", "schedule_ahead",
        "poll_interval", "balance_timeout", "balance_wait", "host_time", "eager_time_per_layer", "graph_batch",
        "graph_tokens", "prompt_slowdown", "frontend_time", "prefix_cache",
    }  # fmt: skip
    drafts = {"draft_acceptance_rate", "draft_layers"}  # of num_speculative_tokens
    elsewhere = {"gpu_memory_utilization", "free_gpu_memory_fraction", "num_gpu_blocks_override", "all_reduce", *drafts}
    assert set(Settings.model_fields) == played | elsewhere | set(READABLE)
