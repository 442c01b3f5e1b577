"""Tensor parallelism as a user writes it, with and without expert parallelism."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim


def ran(moesim: Moesim, name: str, *changes: str) -> dict[str, Any]:
    """The document of a run."""
    done = moesim("run", name, *(part for change in changes for part in ("--set", change)), "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_deepseek_under_tp8_on_h200_caches_its_latent_eight_times(moesim: Moesim) -> None:
    changes = {
        "cluster": "{topology: hgx-h200, nodes: 1}",
        "parallel": "{tensor_parallel_size: 8, data_parallel_size: 1, expert_parallel_size: 8}",
        "experts": "{redundant: 0, placement: contiguous}",
        "batch": "{phase: decode, tokens_per_gpu: 128, context: 2048}",
        "costs": "h200_sxm",
    }
    done = moesim(
        "run", "dsv3-decode-ep72", *(x for key, value in changes.items() for x in ("--set", f"{key}={value}"))
    )
    cache = 8 * 128 * 2049 * 61 * 576 * 2  # 1,024 requests, all on every rank
    assert done.code == 3 and f"KV cache {cache / 1e9:.4g} GB" in done.err, done.err


TP8 = "parallel={tensor_parallel_size: 8}"


def test_tensor_parallel_without_experts_is_what_engines_do_by_default(moesim: Moesim) -> None:
    found = ran(moesim, "demo-qwen3", TP8, "batch.tokens_per_gpu=8", "routing={balanced: true}")
    assert "all-reduce after attention and after experts" in found["provenance"]["tensor_parallel"]
    links = found["provenance"]["congestion"]["hot_spots"]
    # 48 layers, two all-reduces of 64 tokens x 2,048 x 2 bytes, and one of the embedding: a rank sends 7/8 of the
    # buffer twice; and its eighth of the logits of 64 tokens to seven others
    logits = 7 * 64 * (151_936 // 8) * 2
    assert links[0]["bytes"] == (48 * 2 + 1) * 2 * 7 * (64 * 2048 * 2) // 8 + logits


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        ("{tensor_parallel_size: 8, expert_parallel_size: 4, expert_tensor_parallel_size: 1}", "_size: 2"),
        ("{tensor_parallel_size: 2, data_parallel_size: 4, expert_tensor_parallel_size: 3}", "one of 1, 2, 4, 8"),
    ],
)
def test_degrees_that_do_not_fit_are_refused_with_those_that_do(moesim: Moesim, parallel: str, said: str) -> None:
    done = moesim("run", "demo-qwen3", "--set", f"parallel={parallel}")
    assert done.code == 2 and "expert_tensor_parallel_size" in done.err and said in done.err


@pytest.mark.parametrize("phase", ["decode", "train"])
@pytest.mark.parametrize(
    "parallel",
    [
        "{tensor_parallel_size: 4, data_parallel_size: 2, expert_parallel_size: 2}",  # experts over 2 x 2
        "{tensor_parallel_size: 2, data_parallel_size: 4, expert_parallel_size: 4, expert_tensor_parallel_size: 2}",
        "{tensor_parallel_size: 4, data_parallel_size: 2}",
        "{data_parallel_size: 8, expert_tensor_parallel_size: 8}",
        "{tensor_parallel_size: 4, data_parallel_size: 2, expert_parallel_size: 8}",
    ],
)
def test_mixtures_run_in_every_phase(moesim: Moesim, phase: str, parallel: str) -> None:
    batch = f"batch={{phase: {phase}, tokens_per_gpu: 64, context: 64}}"
    found = ran(moesim, "demo-tiny", f"parallel={parallel}", batch, "comm.dispatch=nccl")
    assert found["metrics"]["step_time_s"]["value"] > 0
    assert found["breakdown"]["exposed_comm_s"] > 0


def test_idle_gpus_are_said_with_the_layout_that_would_use_them(moesim: Moesim) -> None:
    one, two = (ran(moesim, "demo-tiny", f"cluster.nodes={nodes}", "routing={balanced: true}") for nodes in (1, 2))
    said = [text for text in two["warnings"] if "idle" in text]
    assert "8 of the cluster's 16 GPUs are idle" in said[0] and "cluster.nodes: 1" in said[0]
    assert "data_parallel_size: 16 with expert_parallel_size: 16 or 8" in said[0]
    assert not any("idle" in text for text in one["warnings"])
    for name in ("step_time_s", "tokens_per_s_per_node"):
        assert one["metrics"][name] == two["metrics"][name]
    both = ran(
        moesim, "demo-tiny", "cluster.nodes=2", "parallel.data_parallel_size=12", "parallel.expert_parallel_size=4"
    )
    metrics = {name: metric["value"] for name, metric in both["metrics"].items()}
    assert metrics["tokens_per_s_per_node"] == pytest.approx(metrics["tokens_per_s"] / 2)  # 8 and 4 GPUs of two nodes


def test_costs_follow_the_device_and_a_mismatch_heads_the_output(moesim: Moesim) -> None:
    for topology, profile in (("dgx-h100", "h100_sxm"), ("dgx-b200", "b200_sxm")):
        found = ran(moesim, "demo-tiny", f"cluster.topology={topology}")
        assert found["provenance"]["costs"] == profile and "borrowed" not in found["provenance"]
    text = moesim("run", "demo-tiny", "--set", "cluster.topology=dgx-b200", "--set", "costs=h100_sxm").out
    assert "costs h100_sxm were measured on H100-SXM5-80GB and are carried to the rates of B200" in text.splitlines()[1]
    like = ran(moesim, "demo-tiny", "cluster.topology=hgx-h800")  # a device of H100's generation that nobody measured
    assert like["provenance"]["costs"] == "h100_sxm" and "rates of H800-SXM5-80GB" in like["provenance"]["borrowed"]
    unknown = moesim("run", "demo-tiny", "--set", "cluster.topology=mi300x-platform")
    assert unknown.code == 2 and "MI300X-192GB" in unknown.err and "h100_sxm (H100-SXM5-80GB)" in unknown.err


@pytest.mark.parametrize(
    "parallel",
    ["{tensor_parallel_size: 4, data_parallel_size: 2}",
     "{tensor_parallel_size: 2, data_parallel_size: 4, expert_parallel_size: 4, expert_tensor_parallel_size: 2}"],
)  # fmt: skip
def test_routers_route_for_experts_that_are_spread_by_width(moesim: Moesim, parallel: str) -> None:
    routing = "routing={router: topk_softmax}"
    plain, spread = (ran(moesim, "demo-tiny", routing, *more) for more in ([], [f"parallel={parallel}"]))
    assert spread["metrics"]["expert_max_over_mean"] == plain["metrics"]["expert_max_over_mean"]


def test_memory_follows_optimizer_and_router(moesim: Moesim) -> None:
    train = "batch={phase: train, tokens_per_gpu: 128, context: 64}"
    peaks = [
        ran(moesim, "demo-tiny", train, *more)["metrics"]["peak_memory_bytes"]["value"]
        for more in ([], ["training.optimizer=adafactor"], ["routing={router: {name: gshard_top2, cf: 8.0}}"])
    ]
    assert peaks[1] < peaks[0] and len(set(peaks)) == 3


def test_memory_holds_what_a_router_keeps(moesim: Moesim) -> None:
    """A hypernetwork of width 8 makes [hidden x experts] gates: eight times a gate's numbers a layer, bf16."""
    whole = [
        ran(moesim, "demo-tiny", f"routing={{router: {router}}}")
        for router in ("conditioned_topk", "{name: conditioned_topk, embedding: 8}")
    ]
    peaks = [one["metrics"]["peak_memory_bytes"]["value"] for one in whole]
    hidden, experts, layers = 128, 32, 8  # of tiny-moe
    assert peaks[1] - peaks[0] == 2 * 8 * hidden * experts * layers


def test_replicated_tokens_need_experts_on_the_ranks_that_share_them(moesim: Moesim) -> None:
    spread = "parallel={tensor_parallel_size: 8, expert_parallel_size: 8, data_parallel_size: 1}"
    found = ran(moesim, "demo-qwen3", spread, "comm.dispatch=replicated")
    assert found["provenance"]["dispatch"] == "replicated"
    refused = moesim("run", "demo-qwen3", "--set", "comm.dispatch=replicated")
    assert refused.code == 2 and "8 ranks share experts, and 1 their tokens. Try: parallel.tensor_" in refused.err
    train = moesim("run", "mixtral-train-ep8", "--set", "comm.dispatch=replicated")
    assert train.code == 2 and "inference" in train.err


def test_experts_of_several_groups_compute_at_once(moesim: Moesim) -> None:
    """Two groups of four GPUs have the rows of one of eight each: as long, not twice."""
    one, two = (
        ran(moesim, "demo-tiny", f"parallel.expert_parallel_size={size}", "routing={balanced: true}")["metrics"]
        for size in (8, 4)
    )
    for name in ("experts_s", "router_s"):
        assert two[name]["value"] == pytest.approx(one[name]["value"], rel=0.25), name
