"""The search behind `moesim recommend`: its space, its arithmetic, and when it may stop."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.serving import engine
from moesim.studies.fronts import undominated
from moesim.studies.recommending.finalists import LEAST_SLACK, Known, Reached, Screen, finalists
from moesim.studies.recommending.flags import launch
from moesim.studies.recommending.recommendation import Recommendation, Row
from moesim.studies.recommending.screen import Load, Pool, apart, together
from moesim.studies.recommending.space import Candidate, serving_space, training_space
from moesim.studies.sweeping.axes import Axis, Interval

BASE: dict[str, Any] = {"model": "tiny-moe", "comm": {"dispatch": "nccl"},
                        "scheduler": {"max_num_seqs": 8, "max_num_batched_tokens": 64}}  # fmt: skip


def document(data: dict[str, Any]) -> yamlfile.Document:
    return yamlfile.Document({"model": "Qwen/Qwen3-30B-A3B", **data}, "test")


@pytest.mark.parametrize("gpus", [1, 4, 8, 16, 24])
def test_the_space_is_every_layout_that_a_brute_force_finds(gpus: int) -> None:
    found = serving_space(document(BASE), gpus, 8, (), pools=False)
    expected = set()
    for tensor, data, expert, replicas in product(*[range(1, gpus + 1)] * 3, (1, 2, 3, 4, 6, 8, 12, 16, 24)):
        world = tensor * data
        powers = all(size & (size - 1) == 0 for size in (tensor, data))
        fits = replicas * world <= gpus and tensor <= 8 and (world <= 8 or world % 8 == 0)
        experts = expert in (1, world) if data == 1 else expert == world
        number = replicas & (replicas - 1) == 0 or replicas == gpus // world
        if powers and fits and experts and number:
            expected.add((tensor, data, expert, replicas))
    layouts = [(one.keys["parallel"], one.keys["replicas"]) for one in found]
    assert {(*sizes.values(), n) for sizes, n in layouts} == expected
    assert len(found) == len(expected)
    assert all(
        one.gpus == int(np.prod(list(sizes.values())[:2])) * n for one, (sizes, n) in zip(found, layouts, strict=True)
    )


def test_pools_fill_the_gpus_and_axes_multiply_the_space() -> None:
    alone = len(serving_space(document(BASE), 4, 8, (), pools=False))
    both = serving_space(document(BASE), 4, 8, (), pools=True)
    assert len(both) > alone and {one.gpus for one in both[alone:]} == {4}
    axes = [Axis("requests.number", (1, 2, 3))]
    assert len(serving_space(document(BASE), 4, 8, axes, pools=False)) == 3 * alone
    with pytest.raises(BadInput, match="needs values"):
        serving_space(document(BASE), 4, 8, [Axis("requests.number", Interval(1, 9))], pools=False)
    with pytest.raises(BadInput, match="20,000 at most"):
        serving_space(document(BASE), 16, 8, [Axis("a", tuple(range(500))), Axis("b", (1, 2))], pools=True)


def test_a_model_without_experts_is_trained_on_layouts_without_theirs() -> None:
    base = {"model": "Qwen/Qwen3-32B", "batch": {"micro_batches": 16}, "parallel": {"data_parallel_size": 4}}
    found = [one.keys["parallel"] for one in training_space(document(base), 8, (), 8)]
    assert {one["tensor_parallel_size"] for one in found} == {1, 2, 4, 8}
    assert not any(key.startswith("expert") for one in found for key in one)


def test_training_keeps_the_tokens_of_a_step_and_uses_every_gpu() -> None:
    base = {"batch": {"micro_batches": 16}, "parallel": {"data_parallel_size": 4}}
    found = training_space(document(base), 8, (), 8)
    assert found
    for one in found:
        sizes = one.keys["parallel"]
        assert sizes["tensor_parallel_size"] * sizes["data_parallel_size"] * sizes["pipeline_parallel_size"] == 8
        assert sizes["data_parallel_size"] * one.keys["batch.micro_batches"] == 64
        assert 8 % (sizes["pipeline_parallel_size"] * sizes.get("virtual_pipeline_size", 1)) == 0
    whole = {"batch": {"global-batch-size": 64}, "parallel": {"data-parallel-sharding-strategy": "optim_grads"}}
    again = training_space(document(whole), 8, (), 8)
    assert len(again) == len(found) and not any("batch.micro_batches" in one.keys for one in again)
    assert all(one.keys["parallel"]["zero_stage"] == 2 for one in again)
    long = {"batch": {"micro_batches": 64}, "parallel": {"context_parallel_size": 2, "data_parallel_shard_size": 2}}
    halves = training_space(document({**long, "pipeline": {"hide_alltoall": True}}), 8, (), 8)
    for one in halves:
        sizes = one.keys["parallel"]
        assert sizes["context_parallel_size"] == 2 and sizes["data_parallel_size"] % 2 == 0
        assert 2 * sizes["tensor_parallel_size"] * sizes["data_parallel_size"] * sizes["pipeline_parallel_size"] == 8
        assert one.keys["pipeline"]["hide_alltoall"] and "CP 2" in one.label
    with pytest.raises(BadInput, match="is for one number of stages"):
        training_space(document({**long, "parallel": {"stage_layers": [4, 4]}}), 8, (), 8)
    with pytest.raises(BadInput, match="no layout of 64 GPUs divides the step's 3 sequences"):
        training_space(document({"batch": {"micro_batches": 3}}), 64, (), 4)


@pytest.mark.parametrize("seed", range(20))
def test_a_screen_that_is_no_further_off_than_its_slack_finds_the_whole_front(seed: int) -> None:
    random = np.random.default_rng(seed)
    estimates = random.uniform(1, 10, (120, 2))
    truth = estimates * random.uniform(0.8, 1 + LEAST_SLACK, estimates.shape)
    meets = random.random(120) < 0.7
    screen = Screen(estimates, 2, np.zeros(2))
    asked: list[int] = []

    def simulate(rows: Any) -> Known:
        asked.extend(rows)
        return {row: Reached(truth[row], bool(meets[row])) for row in rows}

    found = finalists(screen, simulate, 120)
    able = np.flatnonzero(meets)
    front = set(able[undominated(truth[able])].tolist())  # exhaustive
    assert front <= set(found.known) and found.left == ()
    assert len(asked) == len(set(asked)) == len(found.known)


def test_the_budget_is_kept_and_what_is_left_is_said() -> None:
    estimates = np.column_stack((np.arange(1.0, 31), np.arange(30.0, 0, -1)))  # all on the front
    truth = {row: Reached(estimates[row], True) for row in range(30)}
    found = finalists(Screen(estimates, 2, np.zeros(2)), lambda rows: {row: truth[row] for row in rows}, 7)
    assert len(found.known) == 7 and len(found.left) == 23
    nothing = finalists(Screen(estimates, 2, np.array([100.0, 0.0])), lambda rows: dict.fromkeys(rows), 7)
    assert len(nothing.known) == 7 and set(nothing.known.values()) == {None} and nothing.left == ()


def test_limits_that_no_estimate_meets_are_tried_where_they_are_nearest() -> None:
    """Estimates are 2x too low: the nearest to 25 is 20, which reaches 40; then 15 may, and does, reach 30."""
    estimates, truth = (
        np.array([[5.0, 1.0], [20.0, 1.0], [15.0, 3.0]]),
        np.array([[10.0, 1.0], [40.0, 1.0], [30.0, 3.0]]),
    )
    asked: list[int] = []

    def simulate(rows: Any) -> Known:
        asked.extend(rows)
        return {row: Reached(truth[row], bool(truth[row][0] >= 25)) for row in rows}

    found = finalists(Screen(estimates, 2, np.array([25.0, 0.0])), simulate, 3)
    assert asked == [1, 2, 0] and found.left == ()


def test_one_deployments_error_does_not_rule_out_another() -> None:
    """The screen is right for the first and sees the second, the best, at half of what it reaches."""
    estimates, truth = np.array([[4.0, 4.0], [3.0, 3.0], [2.0, 2.0]]), np.array([[4.0, 4.0], [6.0, 6.0], [2.0, 2.0]])
    found = finalists(
        Screen(estimates, 2, np.zeros(2)), lambda rows: {row: Reached(truth[row], True) for row in rows}, 8
    )
    assert set(found.known) == {0, 1, 2}


class Even:
    """Steps of a constant time, whatever is in them."""

    def __init__(self, seconds: float, data: int = 1) -> None:
        self.each, self.data = seconds, data

    def seconds(self, decodes: float, prompts: int = 0, tokens: float = 0.0) -> float:
        return self.each


def pool(seconds: float, replicas: int = 1, data: int = 1, tokens: int = 10**9, **changes: Any) -> Pool:
    settings = engine("vllm_dp_ep", **{"max_num_seqs": 64, "max_num_batched_tokens": 10**6, **changes})
    return Pool(Even(seconds, data), settings, replicas, tokens)  # type: ignore[arg-type]


def test_clients_share_steps_of_a_constant_time_as_by_hand() -> None:
    """8 clients on 2 schedulers, steps of 10 ms, answers of 101 tokens: 100 steps and a step and a half for the prompt,
    8 / 1.015 s answers a second.
    """
    load = Load(10**9, 50.0, 101.0, 8, np.inf)
    found = together(pool(0.01, data=2), load)
    assert found.tpot == 0.01 and found.ttft == pytest.approx(0.015, rel=1e-3)
    assert found.throughput == pytest.approx(101 * 8 / 1.015, rel=1e-3)


def test_clients_wait_where_seats_or_blocks_are_few() -> None:
    load = Load(10**9, 50.0, 100.0, 80, np.inf)
    for few in (pool(0.01, max_num_seqs=4), pool(0.01, tokens=400)):
        found = together(few, load)
        assert found.throughput == pytest.approx(4 / 0.99 * 100, rel=1e-3)  # four at a time, 99 steps each
        assert found.ttft == pytest.approx(0.015 + (80 - 4 - 4 / 0.99 * 0.015) / (4 / 0.99), rel=1e-3)


def test_an_open_load_is_served_as_it_comes_until_it_is_too_much() -> None:
    few = together(pool(0.01, replicas=2), Load(10**7, 50.0, 101.0, 0, 10.0))
    assert few.throughput == pytest.approx(1010, rel=1e-3) and few.ttft == pytest.approx(0.015, rel=1e-3)
    many = together(pool(0.01, max_num_seqs=4), Load(1000, 50.0, 101.0, 0, 10.0))  # 4 a second can be served
    assert many.throughput == pytest.approx(404, rel=0.01)
    assert many.ttft == pytest.approx(500 * (1 / 4 - 1 / 10), rel=0.01)


def test_pools_are_held_back_by_prompts() -> None:
    found = apart(pool(0.1, max_num_batched_tokens=64), pool(0.001), Load(10**7, 64.0, 11.0, 64, np.inf))
    assert found.throughput == pytest.approx(11 * 10, rel=1e-3)  # a prompt every 0.1 s


def test_flags_have_the_engines_own_names() -> None:
    sizes = {"tensor_parallel_size": 2, "data_parallel_size": 4, "expert_parallel_size": 8}
    one: dict[str, Any] = {"mode": "serve", "model": "m", "parallel": sizes, "comm": {"dispatch": "deepep_normal"},
                           "scheduler": {"max_num_seqs": 32, "max_num_batched_tokens": 2048}}  # fmt: skip
    found = launch(one)
    assert "--tensor-parallel-size 2 --data-parallel-size 4 --enable-expert-parallel" in found["vLLM"]
    assert "--all2all-backend deepep_high_throughput" in found["vLLM"]
    assert "--tp-size 8 --dp-size 4 --enable-dp-attention --ep-size 8" in found["SGLang"]
    assert "--deepep-mode normal --max-running-requests 128 --chunked-prefill-size 8192" in found["SGLang"], (
        "of 4 groups"
    )
    assert "--max-num-seqs 32 --max-num-batched-tokens 2048" in found["vLLM"], "of each"
    assert "no attention data parallel over groups of 2" in found["TensorRT-LLM"]
    pools = launch({**one, "pools": {"prefill": {"parallel": {"tensor_parallel_size": 8}, "replicas": 2},
                                     "decode": {"parallel": {"data_parallel_size": 8}}}})  # fmt: skip
    assert "tensor-parallel-size 8" in pools["vLLM prefill"] and "(2 of them)" in pools["vLLM prefill"]
    assert "enable_attention_dp: true" in pools["TensorRT-LLM decode"]


@pytest.mark.parametrize(("training", "said", "unsaid"), [
    ({}, "--use-distributed-optimizer", "recompute"),
    ({"recompute": ["core_attn", "moe"]}, "selective --recompute-modules core_attn moe", "reduce-in-bf16"),
    ({"optimizer": "muon"}, "--optimizer dist_muon", "distributed-optimizer"),
    ({"optimizer": "sgd", "grad-reduce-in-bf16": True}, "sgd --sgd-momentum 0 --grad-reduce-in-bf16", "muon"),
    ({"capacity_factor": 1.25, "pad_to_capacity": True, "overlap_grad_reduce": True},
     "--overlap-grad-reduce --moe-expert-capacity-factor 1.25 --moe-pad-expert-input-to-capacity", "--optimizer "),
])  # fmt: skip
def test_megatron_is_started_with_what_the_step_was_played_with(
    training: dict[str, Any], said: str, unsaid: str
) -> None:
    """A line without its recomputation would start a job that does not fit."""
    scenario = {"mode": "train", "model": "Qwen/Qwen3-30B-A3B", "parallel": {"data_parallel_size": 8},
                "batch": {"sequence_length": 4096}, "pipeline": {"schedule": "1f1b"}, "training": training}  # fmt: skip
    line = launch(scenario)["Megatron"]
    assert said in line and unsaid not in line


@pytest.mark.parametrize(("changes", "said", "unsaid"), [
    ({}, "--seq-length 4096 --bf16 --moe-token-dispatcher-type alltoall", "sequence-parallel"),
    ({"parallel": {"tensor_parallel_size": 2}}, "--sequence-parallel", "instances"),
    ({"comm": {"dispatch": "deepep_normal"}, "precision": {"weights": "fp8"}},
     "--bf16 --fp8-format hybrid --moe-token-dispatcher-type flex --moe-enable-deepep", "alltoall"),
    ({"comm": {"dispatch": "pxn"}, "precision": {"weights": "nvfp4"}},
     "(no flag for GEMMs in nvfp4) (no flag for the all-to-all pxn)", "--bf16"),
    ({"pipeline": {"schedule": "1f1b", "hide_alltoall": True}}, "--overlap-moe-expert-parallel-comm", "no flag"),
    ({"parallel": {"data_parallel_size": 8, "data_parallel_shard_size": 2}},
     "--use-distributed-optimizer --num-distributed-optimizer-instances 4", "fsdp"),
    ({"parallel": {"zero_stage": 3}}, "--ckpt-format fsdp_dtensor --data-parallel-sharding-strategy optim_grads_params",
     "instances"),
    ({"training": {"overlap_param_gather": True}}, "(not without --overlap-grad-reduce", "master"),
    ({"training": {"master": False}}, "(no flag for master: false)", "overlap"),
    ({"model": "Qwen/Qwen3-32B"}, "--bf16", "expert"),
])  # fmt: skip
def test_megatron_would_take_the_line(changes: dict[str, Any], said: str, unsaid: str) -> None:
    """By default it computes in fp32, gathers rows of experts, and refuses tensor and expert parallelism without
    sequence parallelism, and FSDP with its usual checkpoints.
    """
    scenario = {"mode": "train", "model": "Qwen/Qwen3-30B-A3B", "parallel": {"data_parallel_size": 8},
                "batch": {"sequence_length": 4096}, "pipeline": {"schedule": "1f1b"}, **changes}  # fmt: skip
    line = launch(scenario)["Megatron"]
    assert said in line and unsaid not in line


def test_what_was_left_out_is_told_with_how_many_runs_speak_for_it() -> None:
    row = Row(Candidate({}, 1), {}, {}, meets=True)
    found = Recommendation("a", "serve", (), (row, row), 9, {}, 0, 0.0, (0.05, 0.2, 0.1), Path("s"))
    assert "by more than any of the 2 simulated ones did (5%, 20%, 10%: rate, speed, wait)" in found.said_with()[0]
