"""Attention of encoders: priced by their measured kernels where heads are as wide, by causal ones elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.costs import Roofline, Tables
from moesim.costs.profile import ENCODER, HALF, Profile, load_profile
from moesim.costs.profile_file import known_profiles
from moesim.hardware import load_cluster
from moesim.models import Attention

TOPOLOGIES = {"a100_sxm": "dgx-a100", "h100_sxm": "dgx-h100", "h200_sxm": "hgx-h200", "b200_sxm": "dgx-b200"}
DEVICES = {name: load_cluster(topology).devices[0] for name, topology in TOPOLOGIES.items()}


def profile(device: str, engine: str) -> Profile:
    """A shipped one."""
    return load_profile(known_profiles()[device], DEVICES[device], engine)


def heads(number: int, width: int, kv: int = 0) -> Attention:
    return Attention("mha" if not kv else "gqa", number, kv or number, width, width)


@pytest.mark.parametrize(
    ("device", "engine", "batch", "query", "shape", "us"),
    [
        ("h100_sxm", "sglang", 1, 576, heads(16, 64), 16.54),
        ("h100_sxm", "trtllm", 1, 1296, heads(16, 72), 56.56),
        ("h200_sxm", "vllm", 8, 1024, heads(16, 80), 140.13),
        ("b200_sxm", "trtllm", 1, 4096, heads(16, 72), 476.26),  # another kernel: four times as long as with 80
        ("b200_sxm", "vllm", 4, 1500, heads(20, 64), 87.21),
    ],
)
def test_encoders_take_what_their_kernels_took(
    device: str, engine: str, batch: int, query: int, shape: Attention, us: float
) -> None:
    """Rows of aiconfigurator-core 0.12.0 (encoder_attention, bf16)."""
    found = profile(device, engine).full_attention(query, batch, shape, shape.num_heads, "bf16")
    assert float(found.seconds) * 1e6 == pytest.approx(us, rel=0.08)
    assert (found.role, found.family, found.basis, bool(found.outside)) == (
        ENCODER,
        "encoder attention",
        "fitted",
        False,
    )


@pytest.mark.parametrize(
    ("device", "shape"),
    [("h100_sxm", heads(16, 128)), ("h100_sxm", heads(16, 88)), ("h100_sxm", heads(16, 64, kv=4)),
     ("a100_sxm", heads(16, 64))],
)  # fmt: skip
def test_heads_that_nobody_measured_are_causal_after_half_as_many_tokens(device: str, shape: Attention) -> None:
    """Wider ones, shared keys and values, and a device without the table."""
    costs = profile(device, "sglang")
    found = costs.full_attention(1000, 2, shape, 16, "bf16")
    assert found.seconds == costs.attention("prefill", 1000, 500, 2, shape, 16, "bf16").seconds
    assert found.role == "gqa_prefill.bf16" and found.kernel.endswith(HALF)


def test_a_longer_sequence_is_asked_for_beyond_what_was_measured() -> None:
    found = profile("h200_sxm", "vllm").full_attention(np.array([65536, 200_000]), 1, heads(16, 64), 16, "bf16")
    assert found.outside.tolist() == [False, True]
    least = 4 * 200_000**2 * 16 * 64 / DEVICES["h200_sxm"].peak_flops["bf16"]
    assert least <= found.seconds[1] < 3 * least, "FA3 reaches 500 to 600 of 989 TFLOP/s"


def test_twice_the_sequences_take_no_longer_than_twice_and_the_roofline_is_never_beaten() -> None:
    costs, length = profile("b200_sxm", "sglang"), np.array([256, 1024, 4096, 16384])
    one, two = (costs.full_attention(length, number, heads(16, 80), 16, "bf16").seconds for number in (8, 16))
    least = Roofline(DEVICES["b200_sxm"], ()).full_attention(length, 8, heads(16, 80), 16, "bf16").seconds
    assert (two < 2.2 * one).all() and (two > one).all() and (one >= least).all()


def test_a_rank_of_a_tensor_group_has_its_part_of_the_heads_and_tables_say_what_they_asked() -> None:
    costs = profile("h100_sxm", "vllm")
    half = costs.full_attention(577, 1, heads(16, 64), 8, "bf16")
    assert half.seconds == costs.full_attention(577, 1, heads(8, 64), 8, "bf16").seconds
    asked = (np.array([577, 1500, 4096]), 2, heads(16, 64), 8, "bf16")
    assert Tables(costs).full_attention(*asked).seconds.tolist() == costs.full_attention(*asked).seconds.tolist()
