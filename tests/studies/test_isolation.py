"""Isolation by trial: routers that look at the batch are caught, those that do not are cleared."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.studies import load
from moesim.studies.isolation import Isolation, isolation, words


def tried(router: str, **batch: Any) -> Isolation:
    sizes = {"phase": "decode", "tokens_per_gpu": 16, "context": 128} | batch
    text = ", ".join(f"{k}: {v}" for k, v in sizes.items())
    return isolation(load("demo-tiny", [f"routing={{router: {router}}}", f"batch={{{text}}}"]), 0)


@pytest.mark.parametrize("router", ["topk_softmax", "sam", "bias_lossfree", "scope_static", "soft_moe", "iterated_coe"])
def test_each_token_by_itself(router: str) -> None:
    found = tried(router)
    assert found.isolated and found.promise == "each token by itself" and found.experts.asked > 0


@pytest.mark.parametrize("router", ["switch_top1", "{name: batch_priority, cf: 0.75}"])
def test_limited_places_change_drops_and_leave_choices(router: str) -> None:
    found = tried(router)
    assert not found.isolated and found.experts.share == 0 < found.drops.share
    assert "dropped experts" in found.drops.example and found.promise == "rows depend on the batch"


def test_expert_choice_changes_the_experts_themselves() -> None:
    found = tried("expert_choice")
    assert found.experts.share > 0.1 and "experts [" in found.experts.example


def test_a_dropless_capacity_is_isolated_in_spite_of_the_promise() -> None:
    assert tried("{name: switch_top1, cf: 1000.0}").isolated


def test_latency_is_shared_and_said_to_be() -> None:
    found = tried("topk_softmax", tokens_per_gpu=64)
    assert len(found.seconds) == 4 and found.spread > 0
    text = words(found.to_json())
    assert "isolated" in text[0] and "requests of a batch always share its time" in text[-1]


def test_a_recorded_trace_is_isolated() -> None:
    assert isolation(load("demo-tiny", ["batch.tokens_per_gpu=16"]), 0).isolated


def test_a_batch_of_few_requests_is_refused() -> None:
    with pytest.raises(BadInput, match="1 request"):
        isolation(load("demo-tiny", [
            "parallel={data_parallel_size: 1, expert_parallel_size: 1}", "batch.tokens_per_gpu=1",
        ]), 0)  # fmt: skip
