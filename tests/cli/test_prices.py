"""What kernels a run rests on, and that narrower dtypes and one more token do not cost what no kernel takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

DECODE = """
moesim: 1
name: decode
model: deepseek-ai/DeepSeek-V3
mode: step
batch: {phase: decode, tokens_per_gpu: 64, context: 2000}
cluster: {topology: dgx-h100, nodes: 2}
parallel: {tensor_parallel_size: 1, data_parallel_size: 16, expert_parallel_size: 16}
comm: {dispatch: deepep_low_latency, dispatch_dtype: fp8, combine_dtype: bf16}
precision: {weights: fp8, experts: fp8, kv_cache: bf16}
routing: {balanced: true}
network: {level: port_load}
costs: h100_sxm
"""


@pytest.fixture
def decode() -> str:
    """A scenario in the folder that commands run in."""
    Path("decode.yaml").write_text(DECODE)
    return "decode.yaml"


def played(moesim: Moesim, *arguments: str) -> dict[str, Any]:
    """The document of a run."""
    done = moesim("run", *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def step(document: dict[str, Any]) -> float:
    return float(document["metrics"]["step_time_s"]["value"])


def test_a_narrow_kv_cache_is_not_slower_without_a_warning(moesim: Moesim, decode: str) -> None:
    wide, narrow = (played(moesim, decode, "--set", f"precision.kv_cache={one}") for one in ("bf16", "fp8"))
    told = [text for text in narrow["warnings"] if text.startswith("kv_cache fp8 is slower than bf16")]
    assert step(narrow) <= 1.02 * step(wide) or told
    assert narrow["provenance"]["kernels"]["mla_decode.fp8"] != wide["provenance"]["kernels"]["mla_decode.bf16"]


def test_an_odd_number_of_tokens_is_no_dearer_than_more(moesim: Moesim, decode: str) -> None:
    """Every engine's measured fp8 GEMMs do take up to twice as long for 257 rows as for 256: a third row of tiles. What
    no kernel does is to take as long for every odd number of rows.
    """
    short = ("--set", "batch.context=500", "--set", "routing={balanced: true}")
    even, odd, more = (
        step(played(moesim, decode, *short, "--set", f"batch.tokens_per_gpu={m}")) for m in (256, 257, 288)
    )
    assert even < odd < more * 1.03


def test_the_dispatch_chooses_the_experts_kernel(moesim: Moesim, decode: str) -> None:
    behind = played(moesim, decode)
    assert behind["provenance"]["kernels"]["experts.fp8@deepep_low_latency"].split("/")[2] in {
        "deepepmoe_masked", "wideep_compute_cutlass",
    }  # fmt: skip
    alone = played(moesim, decode, "--set", "comm.dispatch=nccl")
    assert "experts.fp8" in alone["provenance"]["kernels"]


def test_kernels_and_their_set_are_named_in_the_terminal(moesim: Moesim, decode: str) -> None:
    done = moesim("run", decode, "--set", "costs={profile: h100_sxm, kernels: sglang}")
    assert done.code == 0 and "kernel set" in done.out
    assert "mla_decode.bf16" in done.out and "sglang/flash_attention" in done.out


def test_users_figures_are_answered_by_the_kernels_they_name(moesim: Moesim) -> None:
    done = moesim("validate", "kernels", "--json")
    document = json.loads(done.out)
    assert done.code == 0 and document["metrics"]["answered_fraction"]["value"] == 1
    assert {"mean_abs_error", "median_abs_error", "max_abs_error"} <= document["metrics"].keys()
    mixtral = document["breakdown"]["h100 vllm triton tuned, Mixtral TP2"]
    assert mixtral["points"] == 5 and abs(mixtral["geometric_mean_ratio"] - 1) < 0.15
    assert "vllm" in next(row["kernel"] for row in document["provenance"]["rows"] if "Mixtral" in row["set"])


def test_a_kernel_that_the_engines_table_lacks_is_taken_from_another_and_said(moesim: Moesim) -> None:
    """Triton's fp8 experts of vLLM are in no table; SGLang's Triton kernel is nearer than vLLM's FlashInfer."""
    document = json.loads(moesim("validate", "kernels", "--json").out)
    qwen = document["breakdown"]["h100 vllm triton default, Qwen3-30B-A3B"]
    assert abs(qwen["geometric_mean_ratio"] - 1) < 0.15
    assert any("vllm's table has no such kernel" in text and "triton" in text for text in document["warnings"])


def test_a_row_below_the_time_to_read_its_weights_is_said(moesim: Moesim) -> None:
    """64 tokens x 8 of 256 reach 1 - (1 - 1/32)^64 = 86.9 % of 64 experts, 24.8 MB each in NVFP4: 173 us."""
    document = json.loads(moesim("validate", "kernels", "--json").out)
    least = 0.869 * 64 * 3 * 7168 * 2048 * (1 / 2 + 1 / 16) / 8e12
    assert least == pytest.approx(173e-6, rel=0.01)
    assert any(text.startswith("138.7 us is less than the 173 us") for text in document["warnings"])


def test_rows_that_name_no_kernel_or_system_are_refused_one_by_one(moesim: Moesim) -> None:
    Path("mine.csv").write_text(
        "system,kernels,model,experts,inter,hidden,topk,dtype,tokens,us\n"
        "h100,vllm triton,Mixtral,8,7168,4096,2,bf16,64,500\n"
        "h100,rocm magic,Mixtral,8,7168,4096,2,bf16,64,500\n"
        "mi300x,vllm,Mixtral,8,7168,4096,2,bf16,64,500\n"
    )
    document = json.loads(moesim("validate", "kernels", "--data", "mine.csv", "--json").out)
    assert document["metrics"]["answered_fraction"]["value"] == pytest.approx(1 / 3)
    assert [text.split(":")[1] for text in document["warnings"]] == ["3", "4"]


def test_a_profiles_own_answers_are_checked_for_physics(moesim: Moesim) -> None:
    done = moesim("calibrate", "check", "cpu", "--physics", "--json")
    document = json.loads(done.out)
    assert done.code == 0 and document["metrics"]["worst_factor"]["value"] >= 1
    assert all(one["told"] >= one["slow"] for one in document["breakdown"].values())
    assert moesim("calibrate", "check", "cpu").code == 2
