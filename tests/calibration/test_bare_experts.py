"""Experts as two bare grouped GEMMs and one fused kernel between: what a profile of such records says of an FFN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.calibration.fit import fit_profile
from moesim.calibration.moving import activation, copies, elementwise
from moesim.calibration.records import Records, join, records_of
from moesim.calibration.shapes_file import of_shapes
from moesim.calibration.systems import find_system
from moesim.costs import load_costs
from moesim.costs.carried import carry
from moesim.costs.profile_file import read_profile
from moesim.hardware import shipped_device
from moesim.units import bandwidth, seconds

H200 = find_system("h200_sxm")
FACTS: dict[str, Any] = {"run": "r", "device": "NVIDIA H200", "device_class": "cuda", "backend": "torch",
                         "version": "1", "provenance": "a law", "dtype": "bf16", "mode": "graph"}  # fmt: skip
EXPERTS = 16
WIDTHS = ((2048, 768), (4096, 1536), (5120, 1024), (7168, 2048))  # hidden, inter of whole experts


def law(rows: float, k: int, n: int) -> float:
    """4 us + the larger of FLOPs at 400 TFLOP/s and bytes at 3 TB/s, of rows spread evenly over EXPERTS experts."""
    moved = 2.0 * (EXPERTS * k * n + rows * (k + n))
    return 4e-6 + max(2.0 * rows * k * n / 400e12, moved / 3e12)


def fused(moved: float) -> float:
    """2 us + bytes at 4 TB/s."""
    return 2e-6 + moved / 4e12


def bare() -> Records:
    found = []
    for hidden, inter in WIDTHS:
        for k, n in ((hidden, 2 * inter), (inter, hidden)):
            for each in (1, 4, 16, 64, 256, 1024):
                shape = {"hidden": k, "inter": n, "topk": 8, "experts": EXPERTS, "matrices": 1, "draws": 1,
                         "tokens": EXPERTS * each // 8, "group_sizes": [each] * EXPERTS}  # fmt: skip
                found.append(FACTS | shape | {"op": "grouped_gemm", "kernel": "torch_grouped_mm_bare",
                                              "seconds": law(EXPERTS * each, k, n)})  # fmt: skip
    return records_of(found)


def moving(op: str, kernel: str, rate: float, launch: float, **more: Any) -> Records:
    rows = [FACTS | {"op": op, "kernel": kernel, "bytes": 1 << log, "seconds": launch + (1 << log) / rate} | more
            for log in (12, 16, 20, 24, 28)]  # fmt: skip
    return records_of(rows)


def ffn(path: Path, each: int, hidden: int, inter: int) -> float:
    costs = load_costs(str(path), H200.device)
    return float(costs.experts(np.full(EXPERTS, each), hidden, inter, "bf16", 3).seconds)


def test_a_whole_expert_is_its_two_gemms_and_what_lies_between(tmp_path: Path) -> None:
    fit_profile(join([bare(), moving("activation", "silu", 4e12, 2e-6)]), H200).write(tmp_path / "mine")
    for each, (hidden, inter) in ((4, WIDTHS[0]), (64, WIDTHS[3]), (1024, WIDTHS[1])):
        rows = EXPERTS * each
        whole = law(rows, hidden, 2 * inter) + fused(2.0 * rows * 3 * inter) + law(rows, inter, hidden)
        assert ffn(tmp_path / "mine.yaml", each, hidden, inter) == pytest.approx(whole, rel=0.06)


def test_without_its_own_rows_the_activation_is_assumed_and_said(tmp_path: Path) -> None:
    fitted = fit_profile(bare(), H200)
    fitted.write(tmp_path / "mine")
    assert any(remark.startswith("activation: not measured, assumed") for remark in fitted.remarks)
    rows, (hidden, inter) = EXPERTS * 1024, WIDTHS[1]
    between = 2e-6 + 2.0 * rows * 3 * inter / (0.447 * 4.8e12)
    whole = law(rows, hidden, 2 * inter) + between + law(rows, inter, hidden)
    assert ffn(tmp_path / "mine.yaml", 1024, hidden, inter) == pytest.approx(whole, rel=0.06)


def test_no_rows_no_time(tmp_path: Path) -> None:
    fit_profile(join([bare(), moving("activation", "silu", 4e12, 2e-6)]), H200).write(tmp_path / "mine")
    assert ffn(tmp_path / "mine.yaml", 0, *WIDTHS[0]) < 1e-5


def test_a_kernel_of_another_backend_is_no_point_of_the_same_line() -> None:
    """The one with more sizes, then the faster: rows of both would give a line that neither is."""
    slow, fast = moving("activation", "eager", 1e12, 9e-6), moving("activation", "silu", 4e12, 2e-6)
    found = activation(join([slow, fast]), H200)
    assert found is not None and "silu reaches 0.83 of peak" in found["source"]
    assert seconds(found["launch"]) == pytest.approx(2e-6, rel=0.02)
    assert bandwidth(found["bytes_per_second"]) == pytest.approx(4e12, rel=0.02)
    assert activation(fast.where(fast["bytes"] > 1 << 20), H200) is None
    mixed = elementwise(join([moving("elementwise", "mul", 4e12, 3e-6), moving("elementwise", "mul", 2e12, 3e-6,
                                                                               dtype="fp32")]), H200)  # fmt: skip
    assert bandwidth(mixed["bytes_per_second"]) == pytest.approx(4e12 * 0.447 / 0.85, rel=0.02)


def test_copies_are_told_by_kind_of_memory() -> None:
    pinned = moving("copy_h2d", "torch_copy_pinned", 55e9, 8e-6, dtype="")
    pageable = moving("copy_h2d", "torch_copy_pageable", 12e9, 30e-6, dtype="")
    told = copies(join([pinned, pageable]))
    assert [one.split(";")[0] for one in told] == [
        "copy_h2d/torch_copy_pageable: 12.0 GB/s after 30.0 us", "copy_h2d/torch_copy_pinned: 55.0 GB/s after 8.0 us",
    ]  # fmt: skip


def test_another_devices_activation_goes_with_its_memory(tmp_path: Path) -> None:
    fit_profile(join([bare(), moving("activation", "silu", 4e12, 2e-6)]), H200).write(tmp_path / "mine")
    section, _ = read_profile(tmp_path / "mine.yaml")
    other = shipped_device("B200-SXM-180GB")
    assert other is not None and section.activation is not None
    moved = carry(section, H200.device, other).activation
    times = other.memory_bandwidth / H200.device.memory_bandwidth
    assert moved is not None and moved.bytes_per_second == pytest.approx(times * section.activation.bytes_per_second)


def test_a_shapes_file_names_whole_experts_and_finds_their_gemms() -> None:
    hidden, inter = WIDTHS[0]
    found = bare().where(of_shapes(bare(), frozenset([(hidden, inter, 8, EXPERTS)])))
    assert {*zip(found["hidden"].tolist(), found["inter"].tolist(), strict=True)} == {(2048, 1536), (768, 2048)}
