"""Stages of serving scenarios: priced as steps are, in the ledger, counted as GPUs, refused where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from moesim.costs import load_costs
from moesim.costs.profile import HALF
from moesim.errors import BadInput, DoesNotFit
from moesim.hardware import load_cluster
from moesim.models import load_model
from moesim.studies import run
from moesim.studies.serving import ServeResult, run_serving
from moesim.studies.serving.stage_sections import StageSection
from moesim.studies.serving.stages import assumptions

SMALL = {
    "name": "small", "hidden_size": 1024, "num_layers": 4, "vocab_size": 32000, "dense_intermediate": 4096,
    "attention": {"num_heads": 8, "num_kv_heads": 8, "head_dim": 128},
}  # fmt: skip
H100 = {"topology": "dgx-h100", "nodes": 1}
SERVE: dict[str, Any] = {
    "name": "staged", "mode": "serve", "model": {**SMALL, "name": "served"}, "cluster": H100,
    "requests": {
        "number": 6, "arrivals": {"poisson": {"rate": "50/s"}}, "input_length": {"fixed": 300},
        "output_length": {"fixed": 5},
    },
    "scheduler": {"host_time": "0 s"},
}  # fmt: skip


def served(*stages: dict[str, Any], **changes: Any) -> ServeResult:
    return run_serving({**SERVE, **changes, "stages": [{"name": "a", **one} for one in stages]})


def step(phase: str, tokens: int, context: int) -> float:
    """Seconds that kernels take of a step on one GPU."""
    batch = {"phase": phase, "tokens_per_gpu": tokens, "context": context}
    found = run({"name": "step", "model": SMALL, "cluster": H100, "batch": batch})
    return float(found.metrics["step_time_s"].value - (found.breakdown["other_s"] or 0.0))


def test_a_model_takes_what_its_steps_take() -> None:
    """Reads 300 tokens and writes 3: a prompt's step and two of decoding, for each of 6 requests."""
    took = served({"model": SMALL, "output_length": 3}).metrics["stage_a_work_s"].value
    by_hand = step("prefill", 300, 300) + step("decode", 1, 300) + step("decode", 1, 301)
    assert took == pytest.approx(6 * by_hand, abs=1e-11)


def test_an_encoder_attends_twice_as_much() -> None:
    """Of 8,192 tokens by peak rates: what attention's core takes of a causal step is added once more."""
    length = 8192
    causal, full = (
        served({"model": SMALL, "input_length": length, "bidirectional": both}, costs="roofline")
        for both in (False, True)
    )
    more = (full.metrics["stage_a_work_s"].value - causal.metrics["stage_a_work_s"].value) / 6
    batch = {"phase": "prefill", "tokens_per_gpu": length, "context": length}
    found = run({"name": "step", "model": SMALL, "cluster": H100, "batch": batch, "costs": "roofline"}).operators
    assert more == pytest.approx(sum(row["seconds"] for row in found if row["label"] == "attention core"), rel=1e-3)


VIT = {
    "name": "vit", "hidden_size": 1024, "num_layers": 4, "vocab_size": 1, "dense_intermediate": 4096,
    "attention": {"num_heads": 16, "num_kv_heads": 16, "head_dim": 64},
}  # fmt: skip


def test_an_encoder_is_priced_by_encoders_kernels_where_they_were_measured() -> None:
    """Its work differs from that of a causal model by what the cores differ."""
    vllm: dict[str, Any] = {"costs": {"profile": "h100_sxm", "kernels": "vllm"}}
    measured = served({"model": VIT, "input_length": 576, "bidirectional": True}, **vllm)
    wider = {**VIT, "attention": {"num_heads": 8, "num_kv_heads": 8, "head_dim": 128}}
    half = served({"model": wider, "input_length": 576, "bidirectional": True}, **vllm)
    notes = [[note for note in found.warnings if note.startswith("stage a: ")] for found in (measured, half)]
    assert any("attend to all others by attention_encoder/vllm/vllm_vit_flash_attn_fa3" in note for note in notes[0])
    assert not any(HALF in note for note in notes[0]) and any(f"{HALF}: assumed" in note for note in notes[1])
    vit = load_model(VIT).in_full.attention
    costs = load_costs("h100_sxm", load_cluster("dgx-h100").devices[0], "vllm")
    core = [costs.full_attention(576, 1, vit, 16, "bf16"), costs.attention("prefill", 576, 0, 1, vit, 16, "bf16")]
    causal = served({"model": VIT, "input_length": 576}, **vllm).metrics["stage_a_work_s"].value
    more = 6 * 4 * float(core[0].seconds - core[1].seconds)
    assert measured.metrics["stage_a_work_s"].value == pytest.approx(causal + more, abs=1e-10)


def test_layers_that_no_kernel_in_full_is_known_of_are_said() -> None:
    """Latent attention and windows keep their causal price after half of the tokens; plain attention does not."""
    section = StageSection.model_validate({"name": "a", "model": SMALL, "bidirectional": True})
    plain, latent, windowed = (
        " ".join(assumptions(section, load_model(name).in_full)) for name in (VIT, "DeepSeek-V3", "gpt-oss-120b")
    )
    assert "half of the others" in latent and "half of the others" in windowed and "half" not in plain


def test_none_and_one_that_takes_nothing_are_the_same() -> None:
    plain, free = run_serving(SERVE), served({"seconds": "0 s"})
    assert {name: free.metrics[name] for name in plain.metrics} == plain.metrics
    assert free.breakdown == {**plain.breakdown, "stages_s": 0.0}


def test_a_stage_on_the_replica_takes_room_from_its_cache() -> None:
    """Weights of three alike models in bf16, as they are counted by hand; own GPUs leave the cache as it is."""
    own, three = served({"model": SMALL}), served({"model": SMALL, "devices": "replica", "resident": 3})
    attention, ffn = 4 * 1024 * 1024, 3 * 1024 * 4096
    weights = three.provenance["stages"]["a"]["memory"]["stage a weights"]
    assert weights == pytest.approx(3 * 2 * (4 * (attention + ffn) + 2 * 32000 * 1024), rel=1e-3)
    assert own.provenance["kv_blocks"] == run_serving(SERVE).provenance["kv_blocks"] > three.provenance["kv_blocks"]
    assert three.provenance["memory"]["stage a weights"] == weights
    assert (own.provenance["gpus"], three.provenance["gpus"]) == (2, 1)


def test_gpus_of_stages_are_paid_for() -> None:
    prices = {"gpu_hour": 2}
    plain, more = run_serving({**SERVE, "prices": prices}), served({"model": SMALL, "devices": 3}, prices=prices)
    hours = [one.metrics["gpu_hours"].value / one.metrics["duration_s"].value for one in (plain, more)]
    assert hours[1] == pytest.approx(4 * hours[0])


def test_pools_have_them_before_their_prompts_and_in_all_steps() -> None:
    pool = {"parallel": {"tensor_parallel_size": 1}}
    found = served(
        {"seconds": "3 ms", "devices": "replica"}, {"name": "b", "seconds": "1 ms", "where": "per_token"},
        pools={"prefill": pool, "decode": pool},
    )  # fmt: skip
    assert found.metrics["stage_a_work_s"].value == pytest.approx(6 * 3e-3)
    steps = found.metrics["prefill_steps"].value + found.metrics["decode_steps"].value
    assert found.metrics["stage_b_work_s"].value == pytest.approx(steps * 1e-3)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({}, "give either seconds or model"),
        ({"seconds": "1 ms", "resident": 2}, "resident has nothing to act on"),
        ({"model": "Qwen/Qwen3-30B-A3B"}, "has experts, which stages do not play"),
        ({"model": SMALL, "devices": 3, "tensor_parallel_size": 2}, "no multiple of tensor_parallel_size 2"),
        ({"seconds": "1 ms", "where": "per_token", "devices": 2}, "devices: replica"),
    ],
)
def test_what_cannot_be_is_refused(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        served(stage)
    assert "stages[0]" in str(caught.value.where)


def test_an_error_has_the_line_of_its_stage(tmp_path: Path) -> None:
    text = yaml.safe_dump({**SERVE, "cluster": H100}) + "stages:\n- {name: a, seconds: 1 ms}\n"
    file = tmp_path / "served.yaml"
    file.write_text(text + "- {name: b, model: Qwen/Qwen3-30B-A3B}\n")
    with pytest.raises(BadInput, match="has experts") as caught:
        run_serving(file)
    assert str(caught.value.where).endswith(f"served.yaml:{len(text.splitlines()) + 1} stages[1].model")


def test_a_name_twice_and_a_model_that_is_too_large_are_refused() -> None:
    with pytest.raises(BadInput, match="name of another stage"):
        served({"seconds": "1 ms"}, {"seconds": "2 ms"})
    with pytest.raises(DoesNotFit, match="stage a weights"):
        served({"model": "meta-llama/Meta-Llama-3-70B"})
