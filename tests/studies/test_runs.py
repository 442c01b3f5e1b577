"""Runs end to end: the ladder adds up, results repeat, limits hold, comparisons pair."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from moesim.costs import error_draw
from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.network import all_to_all
from moesim.step import lower
from moesim.studies import Result, compare, load, run
from moesim.studies.band import band, spreads
from moesim.studies.build import build

SMALL = ["batch.tokens_per_gpu=16", "model=Mixtral-8x7B-v0.1", "routing={balanced: true}", "batch.context=256"]
SKEWED = ["routing={sampled: decode_in2000out100}"]


def small(*more: str, seed: int = 0) -> Result:
    return run(load("demo-qwen3", [*SMALL, *more]), seed=seed)


def step(result: Result) -> float:
    return result.metrics["step_time_s"].value


@pytest.mark.parametrize("level", ["port_load", "fluid"])
def test_the_ladder_adds_up_to_the_step(level: str) -> None:
    result = small(*SKEWED, f"network.level={level}")
    assert math.fsum(value or 0.0 for value in result.breakdown.values()) == pytest.approx(step(result), rel=1e-9)
    assert (result.breakdown["contention_s"] is None) == (level == "port_load")
    assert "contention" in result.provenance


def test_the_same_scenario_and_seed_give_the_same_bytes() -> None:
    one, other = (json.dumps(small(*SKEWED).to_json(), sort_keys=True) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("dispatch", sorted(all_to_all.REGISTRY))
def test_one_rank_sends_nothing_and_waits_for_nobody(dispatch: str) -> None:
    alone = ["parallel.data_parallel_size=1", "parallel.expert_parallel_size=1", f"comm.dispatch={dispatch}"]
    result = run(load("demo-tiny", [*alone, "overlap.schedule=two_batch"]))
    assert result.played.sent.sum() == 0 and result.breakdown["exposed_comm_s"] == 0
    assert result.provenance["compute_slowdown_by_held_sms"] == 1


def test_a_room_that_knows_no_file_is_placed_in_it() -> None:
    with pytest.raises(BadInput, match=r"demo-tiny.yaml:\d+ batch.tokens_per_gpu: 128 .* Try: "):
        run(load("demo-tiny", ["batch.phase=prefill", "batch.context=100"]))
    with pytest.raises(BadInput, match="--set parallel.tensor_parallel_size: 4 heads do not divide .* Try: .*: 2 or 4"):
        run(load("demo-tiny", ["parallel.data_parallel_size=1", "parallel.tensor_parallel_size=8"]))


def test_the_profile_is_never_faster_than_the_roofline() -> None:
    assert step(small(*SKEWED)) > step(small(*SKEWED, "costs=roofline"))


def test_oversubscription_with_skew_shows_contention_that_port_loads_miss() -> None:
    two = ["cluster.topology=rail-fat-tree", "cluster.nodes=4", "parallel.data_parallel_size=32",
           "parallel.expert_parallel_size=8", "comm.dispatch=nccl"]  # fmt: skip
    crowded = ["parallel.expert_parallel_size=32", "cluster.oversubscription=4.0", "model=tiny-moe"]
    result = small(*SKEWED, *two, *crowded, "batch.tokens_per_gpu=64")
    assert result.provenance["player"] == "simulate" and (result.breakdown["contention_s"] or 0) > 0


def test_two_batch_hides_communication() -> None:
    plain, overlapped = (
        small("model=Qwen3-30B-A3B", "batch.tokens_per_gpu=128", f"overlap.schedule={name}")
        for name in ("sequential", "two_batch")
    )
    assert overlapped.breakdown["exposed_comm_s"] < plain.breakdown["exposed_comm_s"]  # type: ignore[operator]


def test_tensor_parallel_adds_its_collectives() -> None:
    names = small("parallel.tensor_parallel_size=2", "parallel.data_parallel_size=4").played.graph.name
    assert "all_gather" in names and "reduce_scatter" in names
    assert "all_gather" not in small().played.graph.name


def test_training_ends_with_gradients_and_optimizer() -> None:
    changes = ["batch={phase: train, tokens_per_gpu: 64, context: 64, micro_batches: 2}", "model=tiny-moe"]
    result = run(load("mixtral-train-ep8", changes))
    names = result.played.graph.name
    assert names[-1].endswith("all_gather") and names.count("optimizer") == 1
    assert names.count("experts_backward") == 2 * 2 * 8  # two groups, two micro-batches, eight layers
    assert names.count("experts") == 2 * names.count("experts_backward")  # forward and recomputed


def test_comparison_is_paired_and_says_what_is_certain() -> None:
    base = load("demo-qwen3", [*SMALL, *SKEWED])
    same = compare(base, base, seeds=3)
    assert same.metrics["step_time_s"].value == 0 and "No difference" in same.verdict()
    more = compare(base, load("demo-qwen3", [*SMALL, *SKEWED, "batch.tokens_per_gpu=64"]), seeds=3)
    assert more.metrics["step_time_s"].low > 0 and "slower" in more.verdict()


def test_the_band_holds_four_of_five_draws_of_the_errors() -> None:
    built = build(load("demo-tiny"), seed=0)
    lowered = lower(built.plan, built.batches)
    found, capacity = band(built, lowered), built.plan.fabric.capacity
    assert found is not None and found.low < 1 < found.high
    draws = [error_draw(spreads(built), seed) for seed in range(200)]
    seconds = [evaluate(lowered.play_as(draw), capacity / draw["network"]).step_seconds for draw in draws]
    median = evaluate(lowered.graph, capacity).step_seconds
    inside = sum(found.low <= one / median <= found.high for one in seconds) / len(draws)
    assert 0.72 <= inside <= 0.88  # binomial(200, 0.8): 0.72 and 0.88 are 2.8 standard deviations away


def test_costs_without_a_known_error_have_no_band() -> None:
    result = run("demo-tiny", overrides=["costs=roofline"])
    assert result.provenance["band"] is None and result.metrics["step_time_s"].low is None


def test_a_kernel_that_gets_all_rows_takes_longer_than_one_that_gets_its_own() -> None:
    seconds = []
    for dispatch in ("nccl", "allgather_reducescatter"):
        graph = small(f"comm.dispatch={dispatch}").played.graph
        experts = np.array([name == "experts" for name in graph.name])[graph.lane_task]
        seconds.append(graph.lane_seconds[experts].sum())
    assert seconds[0] * 1.01 < seconds[1] < seconds[0] * 2
