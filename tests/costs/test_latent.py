"""Modules of latent attention: their demand by hand, rows of the tables, prompts with cached tokens, who has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.costs import Tables, load_costs
from moesim.costs.latent import MEASURED, absorbed, as_measured, gemms, module, up
from moesim.costs.profile import Profile, load_profile
from moesim.costs.profile_file import known_profiles
from moesim.hardware import load_cluster
from moesim.models import load_model

MODEL = load_model("deepseek-ai/DeepSeek-V3")
DEVICES = {name: load_cluster(topology).devices[0] for name, topology in
           {"h200_sxm": "hgx-h200", "h100_sxm": "dgx-h100", "b200_sxm": "dgx-b200"}.items()}  # fmt: skip


def profile(device: str, engine: str) -> Profile:
    """A shipped one."""
    return load_profile(known_profiles()[device], DEVICES[device], engine)


TRTLLM = load_costs("h200_sxm", DEVICES["h200_sxm"], "trtllm")


def test_a_module_is_its_weights_and_its_core() -> None:
    """Two heads, three sequences of one token after seven: 1536 + 576 down, 2 x 192 and 2 x 256 up, 2 x 128 out."""
    shape = as_measured(MEASURED, 2)
    weights = 7168 * (1536 + 576) + 1536 * 2 * 192 + 512 * 2 * 256 + 2 * 128 * 7168
    found = module("decode", 1, 7, 3, shape, "fp8_block", "bf16")
    core = 2 * 3 * 8 * 2 * (2 * 512 + 64)
    assert float(found.flops) == core + 2 * 3 * weights
    cache, own = 3 * 8 * 576 * 2, 3 * 2 * (192 + 128) * 2
    assert float(found.bytes) == cache + own + weights + 2 * 3 * 7168 * 2


@pytest.mark.parametrize(
    ("device", "engine", "phase", "heads", "batch", "query", "context", "us"),
    [
        ("h200_sxm", "trtllm", "decode", 128, 16, 1, 1023, 116),
        ("h200_sxm", "trtllm", "decode", 16, 256, 1, 8191, 632),
        ("h100_sxm", "trtllm", "decode", 128, 256, 1, 1023, 355),
        ("b200_sxm", "trtllm", "decode", 16, 16, 1, 1023, 54),
        ("b200_sxm", "vllm", "decode", 128, 256, 1, 1023, 285),
        ("b200_sxm", "vllm", "prefill", 16, 1, 4096, 0, 279),
        ("b200_sxm", "trtllm", "prefill", 128, 1, 1024, 0, 273),
    ],
)
def test_projections_and_the_rest_take_what_the_module_took(
    device: str, engine: str, phase: str, heads: int, batch: int, query: int, context: int, us: float
) -> None:
    """Rows of aiconfigurator-core 0.12.0 with block-scaled fp8 weights: vLLM 0.24.0, TensorRT-LLM 1.3.0rc20."""
    costs, own = load_costs(device, DEVICES[device], engine), replace(MODEL.attention, num_heads=heads)
    rest = costs.latent_attention(phase, query, context, batch, MODEL.attention, heads, "bf16", "fp8")
    beside = sum(float(costs.gemm(batch * query, one.n, one.k, "fp8").seconds) for one in gemms(own))
    assert (float(rest.seconds) + beside) * 1e6 == pytest.approx(us, rel=0.08)
    assert (rest.role, rest.basis, rest.family) == (f"latent_{phase}.bf16", "fitted", "attention")


def test_cached_tokens_of_a_prompt_cost_what_they_add_to_the_core() -> None:
    rest = (MODEL.attention, 128, "bf16")
    core = [float(TRTLLM.attention("prefill", 1024, c, 1, *rest).seconds) for c in (0, 8192)]
    whole = [float(TRTLLM.latent_attention("prefill", 1024, c, 1, *rest, "fp8").seconds) for c in (0, 8192)]
    assert whole[1] - whole[0] == pytest.approx(core[1] - core[0]) and whole[0] > core[0]


@pytest.mark.parametrize(("device", "engine"), [("h200_sxm", "vllm"), ("h100_sxm", "vllm"), ("b200_sxm", "sglang")])
@pytest.mark.parametrize("weights", ["bf16", "fp8"])
def test_an_engine_without_a_sound_module_has_its_core_and_absorbed_projections(
    device: str, engine: str, weights: str
) -> None:
    """vLLM's on Hopper ran norms and rotary embedding one by one, SGLang's was not measured; nobody lends another's.
    The GEMM beside it, whatever its dtype, and the rest are the core and both absorbed projections.
    """
    costs, context = profile(device, engine), np.array([1, 100, 4000])
    rest, beside = ("decode", 1, context, 64, MODEL.attention, 16, "bf16"), up(MODEL.attention, 16)
    found = costs.latent_attention(*rest, weights)
    whole = found.seconds + costs.gemm(64, beside.n, beside.k, weights).seconds
    parts = costs.attention(*rest).seconds + costs.absorbed(64, 16, MODEL.attention).seconds
    assert whole == pytest.approx(parts) and found.role == "mla_decode.bf16"
    assert f"absorbed/{engine}" in found.kernel
    prompt = ("prefill", 64, 0, 1, MODEL.attention, 16, "bf16")
    assert costs.latent_attention(*prompt, weights).seconds == costs.attention(*prompt).seconds


@pytest.mark.parametrize(
    ("device", "engine", "heads", "tokens", "us"),
    [
        ("h200_sxm", "sglang", 128, 128, 10.2 + 8.7),
        ("h200_sxm", "sglang", 16, 64, 4.3 + 4.6),
        ("h100_sxm", "vllm", 128, 512, 41.9 + 40.4),
        ("b200_sxm", "vllm", 128, 128, 8.6 + 6.7),
    ],
)
def test_absorbed_projections_take_what_both_took(device: str, engine: str, heads: int, tokens: int, us: float) -> None:
    """Rows of aiconfigurator-core 0.12.0 (mla_bmm, bf16)."""
    found = profile(device, engine).absorbed(tokens, heads, MODEL.attention)
    assert float(found.seconds) * 1e6 == pytest.approx(us, rel=0.08)


def test_absorbed_projections_read_each_head_s_weights_once() -> None:
    """Two heads, three tokens: 128 values into 512, and 512 into 128, each way through a head's own matrix in bf16."""
    found = absorbed(3, 2, MEASURED)
    assert float(found.flops) == 2 * 3 * 2 * (128 * 512 + 512 * 128)
    assert float(found.bytes) == 2 * (2 * 2 * 128 * 512 + 3 * 2 * 2 * (128 + 512))
    assert float(absorbed(0, 2, MEASURED).bytes) == 0


def test_a_profile_without_absorbed_projections_says_so() -> None:
    costs = profile("h200_sxm", "sglang")
    costs._roles = {role: name for role, name in costs._roles.items() if not role.startswith("absorbed")}
    rest = ("decode", 1, 1000, 64, MODEL.attention, 16, "bf16")
    found = costs.latent_attention(*rest, "fp8")
    assert found.seconds == costs.attention(*rest).seconds and "absorbed projections as one GEMM" in found.kernel


def test_more_rows_take_longer_and_none_beats_physics() -> None:
    batch = 2 ** np.arange(11)
    for heads in (16, 128):
        found = TRTLLM.latent_attention("decode", 1, 2047, batch, MODEL.attention, heads, "bf16", "fp8")
        beside = sum(TRTLLM.gemm(batch, one.n, one.k, "fp8").seconds for one in gemms(as_measured(MEASURED, heads)))
        assert (np.diff(found.seconds + beside) > 0).all()
        assert (found.seconds >= found.bytes / 4.8e12).all()
    assert float(TRTLLM.latent_attention("decode", 1, 2047, 0, MODEL.attention, 16, "bf16", "fp8").seconds) == 0


def test_tables_say_what_they_asked() -> None:
    rest = ("decode", 1, np.array([100, 3000, 8191]), 16, MODEL.attention, 16, "bf16", "fp8")
    assert Tables(TRTLLM).latent_attention(*rest).seconds.tolist() == TRTLLM.latent_attention(*rest).seconds.tolist()
