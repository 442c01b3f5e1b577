"""A model without experts from the command line: every verb that plays a step, and refusals of what it has not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Moesim

SMALL = ("--set", "model=Meta-Llama-3.1-8B", "--set", "network.level=port_load", "--seed", "0")
TRAIN = (
    "parallel={tensor_parallel_size: 2, data_parallel_size: 4}", "batch={phase: train, tokens_per_gpu: 512, "
    "context: 512}",
)  # fmt: skip


def ran(moesim: Moesim, *sets: str) -> dict[str, Any]:
    options = [word for one in sets for word in ("--set", one)]
    done = moesim("run", "llama3-decode-tp4", *SMALL, *options, "--json")
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def test_decode_reads_weights_and_cache_once(moesim: Moesim) -> None:
    """A step without network is no shorter than the weights (8.03 B less the input table, a quarter each, bf16) and the
    cache (64 sequences x 2,049 tokens x 32 layers x 2 of 8 heads x 128 x 2 x 2 B) at 3.35 TB/s, and no longer than
    twice that.
    """
    found = ran(moesim)
    weights = (8.030e9 - 128256 * 4096) / 4 * 2
    cache = 64 * 2049 * 32 * 2 * 128 * 2 * 2
    least = (weights + cache) / 3.35e12
    assert least < found["breakdown"]["ideal_compute_s"] < 2 * least
    assert found["breakdown"]["imbalance_s"] == 0 and found["breakdown"]["exposed_comm_s"] > 0
    assert not {"placement", "dispatch", "hottest_expert"} & set(found["provenance"])
    assert not {"expert_max_over_mean", "mean_k", "router_s"} & set(found["metrics"])


def test_without_tensor_parallelism_nothing_is_sent(moesim: Moesim) -> None:
    found = ran(moesim, "parallel={data_parallel_size: 8}")
    assert found["breakdown"]["exposed_comm_s"] == 0
    assert found["metrics"]["hottest_link_utilisation"]["value"] == 0


def test_its_words_its_page_and_its_trace(moesim: Moesim) -> None:
    done = moesim("run", "llama3-decode-tp4", *SMALL, "--report", "--trace", "--out", "out")
    assert done.code == 0, done.err
    assert "expert" not in done.out.replace("no experts", "") and "no experts" in moesim("list").out
    assert moesim("explain", "out").code == 0 and moesim("report", "out").code == 0


def test_training_reduces_gradients_and_sends_no_rows(moesim: Moesim) -> None:
    found = ran(moesim, *TRAIN)
    assert found["metrics"]["gradient_sync_s"]["value"] > 0 and "alltoall_s" not in found["metrics"]


def test_comparing_two_of_them(moesim: Moesim) -> None:
    done = moesim("compare", "llama3-decode-tp4", *SMALL[:4], "--set", "batch.tokens_per_gpu=8", "--seeds", "2")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("experts.redundant=8", "experts"),
        ("comm.dispatch=nccl", "comm.dispatch"),
        ("routing.balanced=true", "routing"),
        ("precision.experts=fp8", "precision.experts"),
        ("overlap.shared_expert=false", "overlap.shared_expert"),
        ("parallel.expert_parallel_size=8", "parallel.expert_parallel_size"),
        ("parallel.expert_tensor_parallel_size=4", "parallel.expert_tensor_parallel_size"),
    ],
)
def test_keys_of_experts_are_refused(moesim: Moesim, change: str, key: str) -> None:
    done = moesim("run", "llama3-decode-tp4", "--set", change)
    assert done.code == 2 and f"has no experts: {key} has nothing to act on" in done.err


def test_a_model_with_experts_asks_for_its_routing(moesim: Moesim) -> None:
    done = moesim("run", "llama3-decode-tp4", "--set", "model=Mixtral-8x7B-v0.1")
    assert done.code == 2 and "balanced: true" in done.err


def test_placing_and_transplanting_refuse_it(moesim: Moesim) -> None:
    for words in (
        ("place", "--trace", "tiny-moe", "--topology", "dgx-h100", "--gpus", "8", "--model", "Qwen3-32B"),
        ("trace", "transplant", "tiny-moe", "Qwen3-32B", "-o", "x.parquet"),
    ):
        done = moesim(*words)
        assert done.code == 2 and "Qwen3-32B has no experts" in done.err, done.err


def test_an_engines_own_all_reduce_acts_on_a_dense_model(moesim: Moesim) -> None:
    """80 layers of two sums each: vLLM's own is quicker than NCCL's ring on messages of decode."""
    asked = ("run", "llama3-decode-tp4", "--json", "--set")
    nccl, vllm = (json.loads(moesim(*asked, f"comm.all_reduce={one}").out)["metrics"] for one in ("nccl", "vllm"))
    assert vllm["step_time_s"]["value"] < nccl["step_time_s"]["value"]


def test_an_all_reduce_that_nothing_calls_is_said(moesim: Moesim) -> None:
    done = moesim("run", "demo-tiny", "--set", "comm.all_reduce=vllm")
    assert done.code == 0 and "comm.all_reduce changes nothing here" in done.out + done.err


SERVED = (
    "name: served", "mode: serve", "model: meta-llama/Meta-Llama-3.1-8B", "cluster: {topology: dgx-h100, nodes: 1}",
    "parallel: {tensor_parallel_size: 2}", "precision: {weights: bf16, kv_cache: bf16}",
    "requests: {number: 3, arrivals: {closed_loop: {concurrency: 1}}, input_length: {fixed: 256}, output_length: "
    "{fixed: 4}}",
)  # fmt: skip


def test_it_is_served_and_reads_its_weights_for_every_token(moesim: Moesim) -> None:
    """TPOT is no shorter than half of the weights less the input table, in bf16 at 3.35 TB/s, and no longer than twice
    that.
    """
    Path("served.yaml").write_text("\n".join(SERVED) + "\n")
    done = moesim("run", "served.yaml", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    least = (8.030e9 - 128256 * 4096) / 2 * 2 / 3.35e12
    assert least < document["metrics"]["median_tpot_ms"]["value"] / 1e3 < 2 * least
    assert not {"placement", "dispatch", "routing_renewed_every"} & set(document["provenance"])
    for change, key in (("routing.balanced=true", "routing"), ("comm.dispatch=nccl", "comm.dispatch")):
        refused = moesim("run", "served.yaml", "--set", change)
        assert refused.code == 2 and f"has no experts: {key} has nothing to act on" in refused.err
    pools = (
        "{prefill: {parallel: {tensor_parallel_size: 2}, comm: {dispatch: nccl}}, "
        "decode: {parallel: {tensor_parallel_size: 2}}}"
    )
    yaml = "\n".join(line for line in SERVED if not line.startswith("parallel"))
    Path("pools.yaml").write_text(f"{yaml}\npools: {pools}\n")
    refused = moesim("run", "pools.yaml")
    assert refused.code == 2 and "pools.prefill.comm.dispatch" in refused.err, refused.err


def test_experts_are_served_with_a_routing_alone(moesim: Moesim) -> None:
    Path("served.yaml").write_text("\n".join(SERVED) + "\n")
    done = moesim("run", "served.yaml", "--set", "model=tiny-moe")
    assert done.code == 2 and "balanced: true" in done.err
