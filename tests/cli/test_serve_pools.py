"""Disaggregated pools from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

KV_BYTES = 2 * 9 * 128 * 2  # keys and values of 9 layers, 128 wide, in bf16
if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

SMALL = (
    "dsv3-pools", "--set", "model=tiny-moe", "--set", "routing={trace: tiny-moe}", "--set", "precision={}",
    "--set", "cluster.nodes=2", "--set", "scheduler={preset: vllm_dp_ep}",
    "--set", "pools.prefill={replicas: 2, parallel: {tensor_parallel_size: 2, data_parallel_size: 2}}",
    "--set", "pools.decode={parallel: {data_parallel_size: 8, expert_parallel_size: 8}}",
    "--set", "requests={number: 40, arrivals: {poisson: {rate: 300/s}}, input_length: {fixed: 200}, "
    "output_length: {fixed: 9}}",
)  # fmt: skip


def values(done: Any) -> dict[str, float]:
    assert done.code == 0, done.err
    return {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}


def test_pools_serve_and_say_what_each_did(moesim: Moesim) -> None:
    done = moesim("run", *SMALL, "--json", "--report=page.html", "--out", "r")
    found = values(done)
    document = json.loads(done.out)
    assert found["completed"] == found["transfers"] == 40 and found["prefill_steps"] > 0 < found["decode_steps"]
    assert sum(document["breakdown"].values()) * 1e3 == pytest.approx(found["mean_e2el_ms"], rel=1e-9)
    assert document["breakdown"]["transfer_s"] * 1e3 == pytest.approx(found["mean_transfer_ms"])
    told = document["provenance"]
    assert told["gpus"] == 16 and told["pools"]["prefill"]["first_gpus"] == [0, 4]
    assert told["pools"]["decode"]["first_gpus"] == [8] and not told["pools"]["decode"]["engine"]["prefix_cache"]
    rows = list(csv.DictReader(Path("r/requests.csv").read_text().splitlines()))
    assert all(row["first_token_s"] == row["landed_s"] >= row["departed_s"] >= row["prefilled_s"] for row in rows)
    human = moesim("run", *SMALL)
    assert "KV on the way" in human.out and "2 prefill (vllm_dp_ep, 4 GPUs each)" in human.out
    assert not any("idle" in text for text in document["warnings"])


def test_pools_that_the_cluster_holds_lack_no_gpus(moesim: Moesim) -> None:
    two = "pools.prefill={replicas: 2, parallel: {data_parallel_size: 8, expert_parallel_size: 8}}"
    done = moesim("run", *SMALL, "--json", "--set", two, "--set", "cluster.nodes=3", "--set", "requests.number=4")
    assert json.loads(done.out)["provenance"]["gpus"] == 24
    assert not any("the cluster" in text for text in json.loads(done.out)["warnings"])


def test_kv_takes_its_bytes_over_the_network(moesim: Moesim) -> None:
    """A request alone on the links takes a start-up and its KV over the receiver's port of 50 GB/s, less
    what NCCL leaves of that; on an infinite network nothing.
    """
    far = values(moesim("run", *SMALL, "--json", "--set", "requests.number=1"))["mean_transfer_ms"]
    more = values(moesim("run", *SMALL, "--json", "--set", "requests.number=1", "--set", "requests.input_length=40200"))
    kv = 40_000 * KV_BYTES / 50e9 * 1e3  # one receiver's port takes all of it
    assert kv < more["mean_transfer_ms"] - far < 1.4 * kv
    none = values(moesim("run", *SMALL, "--json", "--set", "pools.transfer=infinite"))
    assert none["mean_transfer_ms"] == 0


def test_each_pool_is_charged_to_its_own_tokens(moesim: Moesim) -> None:
    """Eight GPUs on each side: prompts of 200 tokens pay for theirs, answers of 9 for theirs."""
    found = values(moesim("run", *SMALL, "--json", "--set", "prices={gpu_hour: 1}"))
    hours = 8 * found["duration_s"] / 3600
    assert found["prefill_gpu_hours"] == found["decode_gpu_hours"] == pytest.approx(hours)
    assert found["cost_per_million_input_tokens"] == pytest.approx(hours / (40 * 200) * 1e6)
    assert found["cost_per_million_output_tokens"] == pytest.approx(hours / (40 * 9) * 1e6)
    assert found["cost_per_million_total_tokens"] == pytest.approx(2 * hours / (40 * 209) * 1e6)


def test_answers_of_one_token_never_move(moesim: Moesim) -> None:
    done = moesim("run", *SMALL, "--set", "requests.output_length={uniform: {low: 1, high: 2}}", "--json")
    found = values(done)
    assert 0 < found["transfers"] < found["completed"] == 40
    assert sum(json.loads(done.out)["breakdown"].values()) * 1e3 == pytest.approx(found["mean_e2el_ms"], rel=1e-9)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ("requests.output_length=1", 2, "pools.decode: never receives a request"),
        ("replicas=2", 2, "replicas: each pool has its own. Try: pools.prefill.replicas"),
        ("parallel.data_parallel_size=8", 2, "parallel: each pool has its own"),
        ("pools.prefill.replicas=0", 2, "greater than or equal to 1"),
        ("pools.prefill.replicas=9", 2, "replicas take 48 GPUs, the cluster has 16"),
        ("pools.decode.scheduler={preset: vllm, prefix_cache: true}", 2, "pools.decode.scheduler.prefix_cache"),
        ("pools.decode.parallel={tensor_parallel_size: 3}", 2, "pools.decode.parallel"),
        ("pools.decode.paralel={}", 2, "did you mean 'parallel'"),
        ("pools.decode.scheduler={preset: vllm, gpu_memory_utilization: 0.0001}", 3, "pools.decode"),
        ("pools.transfer=links2", 2, "'links' or 'infinite'"),
    ],
)
def test_pools_that_cannot_be_are_refused_in_one_line(moesim: Moesim, change: str, code: int, says: str) -> None:
    done = moesim("run", *SMALL, "--set", change)
    assert (done.code, done.out) == (code, ""), done.out
    assert says in done.err and len(done.err.strip().splitlines()) == 1, done.err
