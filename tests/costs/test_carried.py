"""A profile carried to another device: beside that device's own fit, and at limits where hand arithmetic says it."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.costs import CostModel, known_profiles, load_costs
from moesim.costs.carried import FAR, NEAR
from moesim.costs.profile import load_profile
from moesim.errors import BadInput
from moesim.hardware import Device, load_cluster
from moesim.models import load_model

NEARBY = [("h100_sxm", "hgx-h200"), ("h200_sxm", "dgx-h100"), ("b200_sxm", "gb200-nvl72"), ("gb200", "dgx-b200")]
OTHERS = [
    ("h200_sxm", "dgx-b200"), ("b200_sxm", "hgx-h200"), ("h100_sxm", "dgx-a100"), ("a100_sxm", "dgx-h100"),
    ("b200_sxm", "rtx-pro-6000-pcie"),
]  # fmt: skip
ROWS = 2.0 ** np.arange(15)
CONTEXTS = np.array([256, 1024, 8192, 32768])
GQA, MLA = (load_model(name).attention for name in ("Qwen3-235B-A22B", "DeepSeek-V3"))


def device(topology: str) -> Device:
    return load_cluster(topology).devices[0]


def answers(costs: CostModel, dtype: str) -> np.ndarray:
    """Seconds of GEMMs, experts and attention of Qwen3-235B and DeepSeek-V3, from 1 row to 16,384."""
    found = [costs.gemm(ROWS, n, k, dtype).seconds for n, k in ((4096, 4096), (7168, 2048), (1024, 4096))]
    even = np.ceil(np.outer(ROWS, np.ones(32)) / 4)
    found += [costs.experts(even, *shape, dtype, 3).seconds for shape in ((4096, 1536), (7168, 2048))]
    for shape, heads in ((GQA, 16), (MLA, 32)):
        found += [costs.attention("decode", 1, CONTEXTS, n, shape, heads, dtype).seconds for n in (1, 16, 128)]
        found += [costs.attention("prefill", q, CONTEXTS, 1, shape, heads, dtype).seconds for q in (128, 4096)]
    return np.concatenate(found)


def errors(source: str, target: str) -> np.ndarray:
    """ln(carried / own fit) of all that `answers` asks, over engines, and over dtypes that both devices compute in."""
    there, found = device(target), []
    for kernels in ("sglang", "trtllm", "vllm"):
        carried, own = (load_costs(name, there, kernels) for name in (source, "auto"))
        dtypes = ("bf16",) if "a100" in source + target else ("bf16", "fp8")
        found += [np.log(answers(carried, dtype) / answers(own, dtype)) for dtype in dtypes]
    return np.concatenate(found)


@pytest.mark.parametrize(("source", "target"), NEARBY)
def test_within_a_generation_a_carried_profile_is_near_the_devices_own(source: str, target: str) -> None:
    assert np.median(np.abs(errors(source, target))) < 0.05


@pytest.mark.parametrize(("pairs", "spread"), [(NEARBY, NEAR), (OTHERS, FAR)])
def test_the_spread_is_that_of_all_pairs(pairs: list[tuple[str, str]], spread: float) -> None:
    wrong = np.concatenate([errors(*pair) for pair in pairs])
    assert np.sqrt(np.mean(wrong**2)) == pytest.approx(spread, rel=0.1)


def test_nothing_changes_on_a_device_of_the_same_rates() -> None:
    own = device("dgx-h100")
    twin = load_costs("h100_sxm", replace(own, name="H100 by another name"), "vllm")
    assert np.array_equal(answers(twin, "fp8"), answers(load_costs("auto", own, "vllm"), "fp8"))


def test_a_device_that_was_measured_is_not_taken_for_another() -> None:
    """`like` counts where nobody measured it."""
    own = load_costs("auto", replace(device("hgx-h200"), like="h100_sxm"), "vllm")
    assert own.device == "H200-SXM-141GB" and own.gemm(64, 4096, 4096, "bf16").basis == "fitted"


def test_memory_bound_work_goes_with_the_memory_and_cut_tensor_units_hold_the_rest() -> None:
    h200, h20 = device("hgx-h200"), device("h20")
    here, there = load_costs("auto", h200, "vllm"), load_costs("auto", h20, "vllm")
    thin = [costs.gemm(1, 16384, 16384, "bf16").seconds for costs in (here, there)]
    assert thin[1] / thin[0] == pytest.approx(4.8 / 4.0, rel=0.03)  # TB/s
    wide = there.gemm(16384, 8192, 8192, "bf16")
    assert 0.75 * 148e12 < wide.flops / wide.seconds <= 0.9001 * 148e12  # H20's bf16 peak: 15 % of H200's


@pytest.mark.parametrize("kernels", ["vllm", "sglang", "trtllm"])
def test_no_kernel_reaches_all_of_a_cut_peak(kernels: str) -> None:
    there = load_costs("auto", device("h20"), kernels)
    rows = np.full((4, 16), [[256], [1024], [4096], [16384]])
    for found in (there.gemm(ROWS, 8192, 8192, "bf16"), there.experts(rows, 4096, 1536, "bf16", 3)):
        assert (found.flops / found.seconds).max() <= 0.9001 * 148e12


def test_a_carried_answer_is_assumed_and_less_sure() -> None:
    own, carried = (load_costs("h200_sxm", device(name), "vllm") for name in ("hgx-h200", "h20"))
    assert carried.gemm(64, 4096, 4096, "bf16").basis == "assumed"
    far = load_costs("a100_sxm", device("h20"), "vllm")
    assert far.families["gemm"] > FAR > carried.families["gemm"]
    assert carried.families["gemm"] ** 2 == pytest.approx(own.families["gemm"] ** 2 + NEAR**2)


def test_kernels_of_arithmetic_that_is_not_there_are_gone() -> None:
    carried = load_costs("h100_sxm", device("dgx-a100-40gb"), "vllm")
    with pytest.raises(BadInput, match=r"no gemm.fp8 among its vllm kernels"):
        carried.gemm(64, 4096, 4096, "fp8")


def test_what_cannot_be_carried_is_refused() -> None:
    no_rate = replace(device("h20"), peak_flops={"fp8": 1e14})
    with pytest.raises(BadInput, match="gives no fp32 rate"):
        load_costs("h200_sxm", no_rate)
    with pytest.raises(BadInput, match="unknown cost profile 'h300'"):
        load_costs("auto", replace(device("h20"), like="h300"))
    assert load_profile(known_profiles()["h200_sxm"], device("h20")).device == "H200-SXM-141GB"


def test_a_cache_that_a_device_names_is_the_one_that_is_read_from() -> None:
    small = device("rtx-5090-pcie")
    assert small.cache_bytes == 96 << 20
    named, unnamed = (load_costs("rtx_pro_6000", one, "vllm") for one in (small, replace(small, cache_bytes=0)))
    between = [
        costs.gemm(1, 8192, 6700, "bf16") for costs in (named, unnamed)
    ]  # 110 MB: more than 96, less than 128 MB
    assert between[0].seconds >= 2 * 8192 * 6700 / small.memory_bandwidth > 0
    assert between[0].seconds >= between[1].seconds
