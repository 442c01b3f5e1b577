"""Cadence of prompts: when they wait so that answers go on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.serving import Served
from moesim.step import Batch, Phase
from moesim.studies.serving import run_serving
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, requests_of, served
from tests.serving.test_laws import COLUMNS, crowd

BOTH: tuple[dict[str, Any], ...] = (
    {"prefill_schedule_interval": 5}, {"prefill_decode_interval": 4}, {"preset": "sglang", "prefill_decode_interval": 4}
)  # fmt: skip


def test_answers_go_on_for_so_many_steps_after_a_prompt() -> None:
    """Steps of 1 ms, a prompt in the one at 5 ms: the next may come in the one at 9 ms."""
    at = [0, 45 * MS // 10, 52 * MS // 10]
    book = served(requests_of(at, 10, 40), lambda batch: MS, "sglang", prefill_decode_interval=3).book
    assert book.started.tolist() == [0, 5 * MS, 9 * MS]


def test_ranks_take_prompts_in_the_same_steps() -> None:
    """In every fourth since both were idle, at 0 ms: not in the one at 5 ms but at 8; a rank that decodes nothing does
    not wait.
    """
    both = served(
        requests_of([0, 0, 45 * MS // 10], 10, 40), lambda batch: MS, schedulers=2, prefill_schedule_interval=4
    )
    one = served(requests_of([0, 45 * MS // 10], 10, 40), lambda batch: MS, schedulers=2, prefill_schedule_interval=4)
    assert (both.book.started[2], one.book.started[1]) == (8 * MS, 5 * MS)


def test_a_queue_that_one_step_does_not_empty_is_not_throttled() -> None:
    """Three of 200 tokens come to each rank, of 209 that a step has left: two begin at 8 ms, one later."""
    asked = requests_of([0, 0, *[45 * MS // 10] * 6], 200, 40)
    book = served(
        asked, lambda batch: MS, schedulers=2, prefill_schedule_interval=4, max_num_batched_tokens=210, max_num_seqs=64
    ).book
    assert np.array_equal(np.sort(book.started[2:]) // MS, [8, 8, 8, 8, 9, 9])


def test_no_prompt_comes_too_soon_where_something_decodes() -> None:
    prompts: list[tuple[int, bool]] = []
    steps = 0

    def step(batch: Batch) -> int:
        nonlocal steps
        steps += 1
        if (batch.phase == Phase.PREFILL).any():
            prompts.append((steps, bool((batch.phase == Phase.DECODE).any())))
        return by_tokens(batch)

    served(requests_of(*crowd(5)), step, prefill_decode_interval=3, max_num_batched_tokens=512, blocks=200)
    assert len(prompts) > 100
    for (one, _), (other, decodes) in pairwise(prompts):
        assert other - one > 3 or not decodes


@pytest.mark.parametrize("case", BOTH)
@pytest.mark.parametrize("ahead", [False, True])
def test_stretches_change_nothing(case: dict[str, Any], ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> Served:
        return served(requests_of(*crowd(3, n=100, gap=25.0)), by_tokens, **{
            "replicas": 2, "schedulers": 2, "blocks": 120, "schedule_ahead": ahead, **case})  # fmt: skip

    in_stretches_and_steps(play, COLUMNS, monkeypatch)


def test_it_needs_several_ranks() -> None:
    with pytest.raises(BadInput, match=r"scheduler\.prefill_schedule_interval.*several data-parallel ranks"):
        run_serving("qwen3-serve", overrides=(
            "model=tiny-moe", "routing={trace: tiny-moe}", "precision={}", "scheduler.prefill_schedule_interval=4",
            "parallel={tensor_parallel_size: 2}", "comm={}"))  # fmt: skip
