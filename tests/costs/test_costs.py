"""Costs: the roofline's physics, the shipped profile's promises, and profiles that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moesim import shipped, yamlfile
from moesim.costs import CommunicationCost, error_draw, known_profiles, load_costs
from moesim.costs.profile_file import read_profile, read_section
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.models import Attention, load_model

H100 = load_cluster("dgx-h100").devices[0]
PROFILE = load_costs("h100_sxm", H100)
ROOFLINE = load_costs("roofline", H100)
MLA = load_model("DeepSeek-V3").attention


def test_the_roofline_is_the_larger_of_compute_and_memory() -> None:
    seconds = ROOFLINE.gemm(np.array([1, 65536]), 4096, 4096, "bf16").seconds
    weights = (4096 * 4096 + 2 * 4096) * 2 / 3.35e12
    assert seconds == pytest.approx([weights, 2 * 65536 * 4096 * 4096 / 989.4e12])


@given(st.integers(1, 4096), st.sampled_from([1024, 4096, 8192]))
def test_no_gemm_of_the_profile_beats_peak(m: int, n: int) -> None:
    for dtype in ("bf16", "fp8"):
        flops = 2 * m * n * 4096 / H100.peak_flops[dtype]
        assert float(PROFILE.gemm(m, n, 4096, dtype).seconds) >= flops


def test_only_active_experts_cost_and_no_rows_cost_nothing() -> None:
    rows = np.array([[0, 0, 0, 0], [64, 0, 0, 0], [64, 64, 64, 64]])
    seconds = PROFILE.experts(rows, 7168, 2048, "fp8", 3).seconds
    assert seconds[0] == 0 and seconds[1] < seconds[2]


def test_beyond_the_measured_hull_is_flagged() -> None:
    inside = PROFILE.gemm(np.array([256]), 4096, 4096, "bf16").outside
    beyond = PROFILE.gemm(np.array([10**9]), 4096, 4096, "bf16").outside
    assert not inside[0] and beyond[0]


def test_mla_reads_its_latent_when_it_decodes() -> None:
    short, long = (PROFILE.attention("decode", 1, c, 128, MLA, 128, "bf16").seconds for c in (1000, 4000))
    assert float(long) > 1.5 * float(short)


def test_a_borrowed_profile_is_assumed_throughout() -> None:
    a100 = load_cluster("dgx-a100").devices[0]
    assert load_costs("h100_sxm", a100).gemm(16, 1024, 1024, "bf16").basis == "assumed"
    assert PROFILE.gemm(16, 1024, 1024, "bf16").basis == "fitted"


def test_one_error_is_drawn_per_family_and_seed() -> None:
    draw = error_draw(PROFILE.families, 3)
    assert set(draw) == set(PROFILE.families) and draw == error_draw(PROFILE.families, 3) != error_draw(
        PROFILE.families, 4
    )


def test_unknown_names_and_missing_operators() -> None:
    with pytest.raises(BadInput, match="did you mean 'h100_sxm'"):
        load_costs("h100_smx", H100)
    with pytest.raises(BadInput, match="no gemm.fp4"):
        PROFILE.gemm(1, 128, 128, "fp4")
    with pytest.raises(BadInput, match=r"no fp4 arithmetic. Try: one of .*fp8 \(precision.experts, "):
        ROOFLINE.gemm(1, 128, 128, "fp4")


def test_a_flipped_bit_in_the_grid_is_refused(tmp_path: Path) -> None:
    source = shipped.shipped("calibration", "profiles", "h100_sxm")
    data = bytearray(source.with_suffix(".parquet").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "p.parquet").write_bytes(bytes(data))
    (tmp_path / "p.yaml").write_bytes(source.with_suffix(".yaml").read_bytes())
    with pytest.raises(BadInput, match="damaged"):
        load_costs(str(tmp_path / "p.yaml"), H100)


@pytest.mark.parametrize("name", sorted(known_profiles()))
def test_every_shipped_profile_loads_and_says_how_good_it_is(name: str) -> None:
    section = read_section(known_profiles()[name])
    assert all(one.heldout.p90 > 0 and one.heldout.coverage > 0 for one in section.operators.values())
    for kernels in section.kernels:
        assert load_costs(name, H100, kernels).families.keys() > {"gemm", "grouped_gemm", "attention", "network"}


def test_kernel_sets_are_different_kernels() -> None:
    seconds = {
        one: float(load_costs("h100_sxm", H100, one).gemm(64, 4096, 4096, "fp8").seconds)
        for one in ("sglang", "trtllm", "vllm")
    }
    assert len(set(seconds.values())) == 3
    with pytest.raises(BadInput, match="did you mean 'vllm'"):
        load_costs("h100_sxm", H100, "vlm")


def test_choices_of_other_ranks_cost_time() -> None:
    rows = np.full(32, 16)
    own, all_choices = (PROFILE.experts(rows, 7168, 2048, "fp8", 3, choices).seconds for choices in (None, 8 * 512))
    assert float(own) < float(all_choices)


def test_start_ups_of_collectives_are_read_with_their_units(tmp_path: Path) -> None:
    cost = PROFILE.communication["nccl_ring"]
    assert cost.startup("all_gather", 8, 7, 448.0) == pytest.approx(10.25e-6)
    assert cost.startup("broadcast", 8, 7, 448.0) == pytest.approx(cost.alpha + 7 * cost.per_message)
    data = yamlfile.read_yaml(shipped.shipped("calibration", "profiles", "h100_sxm.yaml")).data
    data["communication"]["nccl"]["steps"][0]["bytes"][0] = "1 GB"
    profile = tmp_path / "h100_sxm.yaml"
    profile.write_text(yaml.safe_dump(data))
    with pytest.raises(BadInput, match="ascending"):
        load_costs(str(profile), H100)


def test_what_a_profile_does_not_say_of_a_kernel_is_what_nobody_measured(tmp_path: Path) -> None:
    """No SMs held, no limit of theirs, nothing for each message, the whole rate of every link, an unknown spread."""
    data = yamlfile.read_yaml(shipped.shipped("calibration", "profiles", "a100_sxm.yaml")).data
    data["communication"]["bare"] = {"alpha": "1 s", "basis": "assumed", "source": "made up"}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    stated = read_section(tmp_path / "p.yaml").communication["bare"].model_dump(exclude={"steps"})
    assert CommunicationCost(**stated) == CommunicationCost(1.0, basis="assumed", source="made up")


def test_sustained_load_slows_arithmetic_and_leaves_memory_alone() -> None:
    """B200 keeps 0.804 of its clock: a large GEMM takes up to 1 / 0.804 as long, one row against a matrix as before."""
    device = load_cluster("dgx-b200", nodes=1).devices[0]
    short = load_costs("auto", device)
    long = short.sustained()
    large, thin = (long.gemm([m], 8192, 8192, "bf16").seconds / short.gemm([m], 8192, 8192, "bf16").seconds
                   for m in (8192, 1))  # fmt: skip
    assert 1.2 < float(large[0]) <= 1 / 0.804 and float(thin[0]) == pytest.approx(1, abs=0.02)
    assert "2899" in long.clock_note and short.clock_note == ""
    hopper = load_costs("auto", load_cluster("dgx-h100", nodes=1).devices[0])
    assert hopper.sustained() is hopper  # nobody measured that it loses any


def test_the_spread_of_a_family_is_the_mean_half_interval_of_its_kernels_as_of_a_normal() -> None:
    """80 % of a normal lie within 1.2816 standard deviations."""
    section = read_section(known_profiles()["h100_sxm"])
    for family, prefixes in (("gemm", ("gemm.",)), ("attention", ("gqa_prefill", "gqa_decode", "mla_")),
                             ("encoder attention", ("gqa_encoder",))):  # fmt: skip
        kernels = [name for role, name in section.kernels[PROFILE.kernels].items() if role.startswith(prefixes)]
        widths = [high - low for low, high in (section.operators[name].interval for name in kernels)]
        assert PROFILE.families[family] == pytest.approx(np.mean(widths) / 2 / 1.28155, rel=1e-4)
        beyond = [
            max(-one.beyond[0], one.beyond[1]) / ((one.interval[1] - one.interval[0]) / 2)
            for one in (section.operators[name] for name in kernels)
            if one.beyond is not None
        ]
        assert PROFILE.widens.get(family) == (pytest.approx(max(np.mean(beyond), 1.0)) if beyond else None)


def test_experts_behind_a_dispatch_are_played_where_their_width_was_measured() -> None:
    """At both ends of the measured widths and between; a hundredth beyond them the engine's own kernel is."""
    dispatch = "deepep_low_latency"
    section = read_section(known_profiles()["h100_sxm"])
    own = f"experts.fp8@{dispatch}"
    hull = section.operators[section.kernels[PROFILE.kernels][own]].hull
    rows, ends = np.array([[64, 64]]), (hull["hidden"], hull["inter"])
    for hidden, inter, measured in (
        (ends[0][0], ends[1][0], True), (ends[0][1], ends[1][1], True), (ends[0][0] * 0.99, ends[1][0], False),
        (ends[0][0], ends[1][1] * 1.01, False),
    ):  # fmt: skip
        costs = load_costs("h100_sxm", H100, dispatch=dispatch, width=(hidden, inter))  # type: ignore[arg-type]
        found = costs.experts(rows, int(hidden), int(inter), "fp8", 3)
        assert (found.role == own) == measured, (hidden, inter)


def test_a_profile_that_has_changed_is_read_again(tmp_path: Path) -> None:
    source = known_profiles()["a100_sxm"]
    for suffix in (".yaml", ".parquet"):
        (tmp_path / f"mine{suffix}").write_bytes(source.with_suffix(suffix).read_bytes())
    mine = tmp_path / "mine.yaml"
    first = read_profile(mine)[0]
    assert read_profile(mine)[0] is first
    mine.write_text(mine.read_text().replace("device: ", "device: other-", 1))
    assert read_profile(mine)[0].device == f"other-{first.device}"


@pytest.mark.parametrize("kernels", ["sglang", "trtllm", "vllm"])
def test_a_kv_cache_is_read_from_memory_however_small_it_is(kernels: str) -> None:
    """By hand: 16 sequences of 2,048 tokens, 8 heads of 128, K and V in a byte each: 67 MB a layer. The kernels were
    measured with them in 128 MB of cache, where a step finds what the layer before has left.
    """
    section, shape = read_section(known_profiles()["rtx_pro_6000"]), Attention("gqa", 32, 8, 128, 128)
    costs = load_costs("rtx_pro_6000", load_cluster("rtx-pro-6000-pcie", nodes=1).devices[0], kernels)
    read = 16 * 2048 * 8 * 128 * 2
    assert read < section.cache
    found = costs.attention("decode", np.array([1]), np.array([2048]), np.array([16]), shape, 32, "fp8")
    assert float(found.seconds[0]) >= read / 1.792e12


def test_moving_bytes_is_no_arithmetic() -> None:
    """8.5 GB: no FLOPs, and the device's whole memory rate is not reached."""
    for costs in (PROFILE, ROOFLINE):
        found = costs.elementwise(np.array([8.5e9]))
        assert np.all(found.flops == 0) and np.all(found.bytes == 8.5e9)
        assert float(found.seconds[0]) >= 8.5e9 / 3.35e12


@pytest.mark.parametrize(
    ("key", "value", "holds"),
    [
        ("norm", 0.24, False), ("norm", 0.25, True), ("norm", 32, True), ("norm", 32.1, False),
        ("rows", 0, False), ("rows", 1, True),
        ("beats_physics", -1, False), ("beats_physics", 0, True), ("too_slow", -1, False), ("other_labels", 0, True),
    ],
)  # fmt: skip
def test_numbers_of_an_operator_have_limits(key: str, value: float, holds: bool, tmp_path: Path) -> None:
    data = yamlfile.read_yaml(shipped.shipped("calibration", "profiles", "a100_sxm.yaml")).data
    next(iter(data["operators"].values()))[key] = value
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    if holds:
        assert read_section(tmp_path / "p.yaml").operators
        return
    with pytest.raises(BadInput, match=key):
        read_section(tmp_path / "p.yaml")
