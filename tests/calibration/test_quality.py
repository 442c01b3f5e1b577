"""Rows that are slow without reason, kernels that lose their role for it, and experts in slots."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from moesim.calibration.histograms import histograms, slot_histograms
from moesim.calibration.kernels import candidates, default_sets, kernel_sets
from moesim.calibration.physics import by_kernel, label
from moesim.calibration.quality import HOST, OTHERS, SLOW, UNFUSED
from moesim.calibration.records import OK, Records, records_of
from moesim.calibration.systems import find_system

H100 = find_system("h100_sxm")
FACTS: dict[str, Any] = {
    "run": "r", "device": "NVIDIA H100 80GB HBM3", "device_class": "cuda", "version": "1", "provenance": "made up",
    "op": "gemm", "dtype": "fp8",
}  # fmt: skip
M, N = (1, 8, 64, 256, 1024, 4096), (512, 1024, 2048, 4096)


def seconds_of(m: int, n: int, k: int) -> float:
    """4 us and 40 % of an H100's peak."""
    return 4e-6 + 2 * m * n * k / (0.4 * 1979e12) + n * k / 2e12


def table(backend: str, factor: float = 1.0, floor: float = 0.0, slow: tuple[int, int, int] | None = None) -> list[Any]:
    """A dense GEMM table of an engine; floor: the host's seconds; slow: one cell, 8.5 times as long."""
    return [
        FACTS | {"backend": backend, "kernel": f"{backend}_mm", "m": m, "n": n, "k": k,
                 "seconds": max(seconds_of(m, n, k) * factor, floor) * (8.5 if (m, n, k) == slow else 1.0)}
        for m, n, k in itertools.product(M, N, N)
    ]  # fmt: skip


def labels(rows: list[Any], backend: str) -> dict[tuple[int, int, int], str]:
    """(m, n, k) -> label of one engine's rows."""
    part = label(records_of(rows), H100).of(backend=backend)
    cells = zip(*(part[name].tolist() for name in ("m", "n", "k")), strict=True)
    return dict(zip(cells, part["label"].tolist(), strict=True))


def test_one_slow_cell_is_found_and_no_other_is_accused() -> None:
    for cell in ((1, 512, 512), (64, 1024, 2048), (4096, 512, 1024), (256, 4096, 4096)):
        found = labels(table("sglang", slow=cell), "sglang")
        assert {one for one, name in found.items() if name != OK} == {cell} and found[cell] in SLOW


def test_a_slow_cell_with_the_most_work_is_found_by_other_engines_alone() -> None:
    most = (4096, 4096, 4096)
    assert set(labels(table("sglang", slow=most), "sglang").values()) == {OK}
    assert labels(table("sglang", slow=most) + table("vllm"), "sglang")[most] == OTHERS


def test_the_fast_engine_is_not_accused_by_a_slow_one() -> None:
    rows = table("sglang") + table("vllm", factor=3.0)
    assert set(labels(rows, "sglang").values()) == {OK}
    assert set(labels(rows, "vllm").values()) <= {OTHERS, HOST}


def test_flat_rows_are_the_hosts_but_not_those_that_other_engines_repeat() -> None:
    rows = table("sglang") + table("trtllm") + table("vllm", floor=88e-6)
    hosted = labels(rows, "vllm")
    assert hosted[1, 512, 512] == HOST and hosted[64, 2048, 2048] == HOST
    assert OK in set(labels(rows, "trtllm").values()) and HOST not in set(labels(rows, "trtllm").values())


def test_judging_twice_changes_nothing() -> None:
    once = label(records_of(table("sglang", slow=(8, 512, 512)) + table("vllm", floor=88e-6)), H100)
    assert label(once, H100)["label"].tolist() == once["label"].tolist()


def parts(rows: list[Any]) -> list[Records]:
    return by_kernel(label(records_of(rows), H100))


def test_a_role_goes_to_the_next_engine_where_the_own_kernel_is_unsound() -> None:
    sets = kernel_sets(candidates(parts(table("sglang") + table("trtllm") + table("vllm", floor=88e-6))))
    assert sets["sglang"]["gemm.fp8"] == "gemm/sglang/sglang_mm/fp8"
    assert sets.get("vllm", {}).get("gemm.fp8", "gemm/sglang/sglang_mm/fp8") == "gemm/sglang/sglang_mm/fp8"


def test_of_two_sound_kernels_of_an_engine_the_faster_plays() -> None:
    slower = [row | {"kernel": "slower", "seconds": row["seconds"] * 1.4} for row in table("sglang")]
    sets = kernel_sets(candidates(parts(slower + table("sglang"))))
    assert sets["sglang"]["gemm.fp8"] == "gemm/sglang/sglang_mm/fp8"


def experts(backend: str, factor: float) -> list[Any]:
    """16 experts: 20 us, their weights at 2 TB/s and FLOPs at 400 TFLOP/s."""
    return [
        FACTS | {"op": "grouped_gemm", "backend": backend, "kernel": f"{backend}_moe", "dtype": "bf16",
                 "hidden": hidden, "inter": 512, "topk": 2, "experts": 16, "matrices": 3, "tokens": each * 8,
                 "draws": 1,
                 "distribution": "balanced", "group_sizes": [each] * 16,
                 "seconds": factor * (20e-6 + 16 * 6 * hidden * 512 / 2e12 + each * 16 * 6 * hidden * 512 / 400e12)}
        for hidden in (1024, 1536, 2048, 3072, 4096, 6144) for each in (1, 4, 16, 64, 256, 1024)
    ]  # fmt: skip


@pytest.mark.parametrize(("factor", "default"), [(1.5, "trtllm"), (1.02, "sglang"), (0.6, "trtllm")])
def test_the_default_set_is_the_engine_whose_experts_are_in_the_middle(factor: float, default: str) -> None:
    rows = experts("sglang", factor) + experts("trtllm", 1.0) + experts("vllm", 1.0 + (1.0 - factor) / 2)
    assert default_sets(candidates(parts(rows))) == {"bf16": default}


def test_planned_slots_hold_all_rows_and_less_of_them_on_the_busiest_rank() -> None:
    plain = histograms(4096, 256, 8, 32, "power_law_1.2")
    planned = slot_histograms(4096, 256, 8, 32, "power_law_1.2", 288, True)
    assert planned.shape == (5, 9) and plain.shape == (5, 8)
    assert planned.sum(axis=1).max() < plain.sum(axis=1).min()
    mean = 4096 * 8 / 32
    assert np.all(planned.sum(axis=1) >= mean)
    one = slot_histograms(4096, 256, 8, 1, "power_law_1.2", 256, True)
    assert sorted(one[0].tolist()) == sorted(histograms(4096, 256, 8, 1, "power_law_1.2")[0].tolist())


def modules(backend: str, late: float) -> list[Any]:
    """Modules of latent attention, of 60 us and more; late: seconds that an engine adds to each."""
    return [
        FACTS | {"op": "latent_decode", "dtype": "fp8_block", "cache_dtype": "bf16", "backend": backend, "hidden": 7168,
                 "kernel": "module", "heads": heads, "batch": batch, "query": 1, "context": context,
                 "seconds": late + 60e-6 + 4e-7 * batch + (6e-10 + 3e-12 * heads) * batch * context}
        for heads, batch, context in itertools.product((1, 16, 128), (1, 8, 64, 512), (7, 511, 4095))
    ]  # fmt: skip


def test_modules_whose_small_kernels_ran_one_by_one_play_no_role_and_none_is_lent() -> None:
    for late, unfused in ((5e-6, False), (40e-6, True)):
        parts = by_kernel(label(records_of(modules("trtllm", 0.0) + modules("vllm", late)), H100))
        assert [set(part["label"].tolist()) for part in parts] == [{OK}, {UNFUSED if unfused else OK}]
        sets = kernel_sets(candidates(parts))
        plays = {engine: roles["latent_decode.bf16"] for engine, roles in sets.items()}
        able = ("trtllm",) if unfused else ("trtllm", "vllm")
        assert plays == {engine: f"latent_decode/{engine}/module/fp8_block/bf16" for engine in able}


def test_a_tile_of_an_encoder_that_is_hardly_filled_is_no_host_time() -> None:
    """64 sequences of 32 heads: 2,048 tiles of 128 tokens take as long with 1 token in each as with all."""
    rows = [
        FACTS | {"op": "attention_encoder", "dtype": "bf16", "backend": "vllm", "kernel": "fa", "batch": batch,
                 "query": query, "heads": 32, "kv_heads": 32, "head_dim": 64,
                 "seconds": 8e-6 + 2e-9 * batch * 32 * 50 * -(-query // 128)}
        for batch, query in itertools.product((1, 2, 8, 64), (1, 16, 32, 64, 128, 512))
    ]  # fmt: skip
    assert set(label(records_of(rows), H100)["label"].tolist()) == {OK}
