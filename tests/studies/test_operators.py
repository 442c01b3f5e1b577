"""Balanced compute by operator: seconds add up, and rates are those of sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moesim.studies import Result, load, run
from moesim.studies.operators import Operator, from_cache

HIDDEN, INTER, EXPERTS, TOP_K, LAYERS, TOKENS, RANKS = 1024, 512, 16, 4, 2, 64, 8
MODEL = (
    f"model={{name: hand, hidden_size: {HIDDEN}, num_layers: {LAYERS}, vocab_size: 1000, num_experts: {EXPERTS}, "
    f"top_k: {TOP_K}, expert_intermediate: {INTER}, attention: {{num_heads: 8, num_kv_heads: 2, head_dim: 128}}}}"
)
BANDWIDTH, PEAK = 3.35e12, 989.4e12  # H100 SXM


def hand(*changes: str) -> Result:
    return run(load("demo-tiny", [MODEL, "routing={balanced: true}", f"batch.tokens_per_gpu={TOKENS}", *changes]))


def named(result: Result, label: str) -> dict[str, object]:
    return next(one for one in result.provenance["operators"] if one["label"] == label)


@pytest.mark.parametrize("changes", [(), ("overlap.schedule=two_batch",), ("batch.phase=prefill", "batch.context=64")])
def test_operators_add_up_to_balanced_compute(changes: tuple[str, ...]) -> None:
    result = hand("routing={sampled: prefill_in512}", *changes) if changes else hand()
    ideal = result.breakdown["ideal_compute_s"]
    assert math.fsum(one["seconds"] for one in result.provenance["operators"]) == pytest.approx(ideal, rel=1e-6)


def test_the_experts_of_the_roofline_reach_the_memory_s_rate() -> None:
    """By hand: each rank reads its 2 experts' three matrices and moves rows in and out of them, in bf16."""
    result = hand("costs=roofline")
    rows = TOKENS * TOP_K  # per rank, all experts reached
    weights = EXPERTS / RANKS * 3 * HIDDEN * INTER * 2
    activations = rows * 2 * (2 * HIDDEN + 3 * INTER)
    experts = named(result, "experts")
    assert experts["seconds"] == pytest.approx(LAYERS * (weights + activations) / BANDWIDTH, rel=1e-6)
    assert experts["of_bandwidth"] == pytest.approx(1.0, rel=1e-6) and experts["bound"] == "memory"
    flops = 2 * rows * 3 * HIDDEN * INTER
    assert experts["flops_per_s"] == pytest.approx(flops * BANDWIDTH / (weights + activations), rel=1e-6)


def test_mbu_is_one_where_only_the_memory_is_waited_for() -> None:
    alone = ["parallel.data_parallel_size=1", "parallel.expert_parallel_size=1", "costs=roofline"]
    result = hand(*alone, "batch.context=4096")
    assert result.metrics["mbu"].value == pytest.approx(1.0, abs=0.02)  # the head and projections are memory-bound too
    assert 0 < result.metrics["mfu"].value < 0.2


def test_a_kernel_is_named_and_a_slow_one_is_bound_by_neither() -> None:
    result = run("demo-tiny")
    assert named(result, "attention core")["kernels"][0].startswith("attention_decode/")  # type: ignore[index]
    assert named(result, "router")["bound"] == "neither"


def test_rows_by_rank_are_those_of_its_experts() -> None:
    result = run("demo-tiny")
    load_, ranks = result.played.expert_load, 8
    by_rank = load_.reshape(len(load_), ranks, -1).sum(axis=2)
    ratio = by_rank.max(axis=1) / by_rank.mean(axis=1)
    assert result.metrics["rank_max_over_mean"].value == pytest.approx(ratio.mean())
    assert result.metrics["rank_max_over_mean_worst_layer"].value == pytest.approx(ratio.max())
    assert result.metrics["experts_reached"].value == np.count_nonzero(load_) / load_.size


def test_an_operator_above_the_memorys_rate_is_named() -> None:
    rows = [
        Operator("router", "gemm", 1e-3, 0.0, 2e12, None, rate, "memory", ("gemm/x/y/bf16",)) for rate in (1.0, 1.25)
    ]
    (words,) = from_cache(rows)
    assert words.startswith("router: 125% of the memory's bandwidth: gemm/x/y/bf16 was measured")
    assert from_cache([Operator("optimizer", "elementwise", 1.0, 0.0, 9e12, None, 2.0, "memory", ())]) == []
