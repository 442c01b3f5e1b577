"""Fit and check on made-up kernels whose law is known, physics, shapes files, and histograms that add up."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.calibration.check import check_profile
from moesim.calibration.communication import held_out_errors, telling
from moesim.calibration.distances import transport
from moesim.calibration.fit import fit_profile
from moesim.calibration.heldout import held_out, prepare
from moesim.calibration.histograms import histograms
from moesim.calibration.moving import elementwise
from moesim.calibration.physics import BEATS, by_kernel, label
from moesim.calibration.records import Records, join, read_records, records_of
from moesim.calibration.shapes_file import read_shapes
from moesim.calibration.systems import find_system, system_of
from moesim.costs import load_costs
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.units import bandwidth, seconds

H200 = find_system("h200_sxm")
FACTS = {"run": "r", "device": "NVIDIA H200", "device_class": "cuda", "backend": "torch", "version": "1",
         "provenance": "a law"}  # fmt: skip


def gemms(noise: float = 0.0) -> Records:
    """5 us + the larger of FLOPs at half of peak and bytes at 60 % of peak bandwidth."""
    rng, rows = np.random.default_rng(0), []
    for n in (512, 1024, 2048, 4096):
        for k in (512, 1024, 2048, 4096):
            for m in (16, 64, 256, 1024, 4096, 16384):
                flops, moved = 2.0 * m * n * k, 2.0 * (m * k + m * n + n * k)
                seconds = 5e-6 + max(flops / 495e12, moved / 2.88e12)
                shape: dict[str, Any] = {"op": "gemm", "kernel": "mm", "dtype": "bf16", "m": m, "n": n, "k": k}
                rows.append(FACTS | shape | {"seconds": seconds * np.exp(noise * rng.standard_normal())})
    return records_of(rows)


def test_a_known_law_is_found_again_on_unseen_shapes() -> None:
    errors = held_out(prepare(gemms(), H200.peaks("bf16")), "shape")
    assert len(errors.log) == len(gemms()) and errors.absolute(0.5) < 0.02 and errors.absolute(0.9) < 0.06


def test_the_interval_covers_what_it_says() -> None:
    errors = held_out(prepare(gemms(noise=0.1), H200.peaks("bf16")), "shape")
    low, high = errors.interval()
    assert 0.7 < errors.coverage() < 0.9 and low < -0.08 < 0.08 < high


def test_a_fitted_profile_is_read_and_judged(tmp_path: Path) -> None:
    records, path = gemms(), tmp_path / "mine.yaml"
    fit_profile(records, H200).write(path)
    costs = load_costs(str(path), H200.device)
    assert float(costs.gemm(16384, 4096, 4096, "bf16").seconds) == pytest.approx(
        5e-6 + 2 * 4096**2 * 16384 / 495e12, rel=0.03
    )
    found = json.loads(json.dumps(check_profile(path, records, H200).to_json()))
    assert found["metrics"]["gemm_median_abs_error"]["value"] < 0.02
    with pytest.raises(BadInput, match="no gemm.fp8 among its torch kernels"):
        costs.gemm(16, 16, 16, "fp8")


def test_a_failed_fit_leaves_a_good_profile_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("good")
    nothing = records_of([FACTS | {"op": "elementwise", "bytes": 8, "kernel": "copy", "seconds": 1e-6}])
    with pytest.raises(BadInput, match="no GEMM, experts or attention"):
        fit_profile(nothing, H200).write(path)
    assert path.read_text() == "good"


def test_what_beats_physics_is_labelled_and_left_out() -> None:
    shape: dict[str, Any] = {"op": "gemm", "kernel": "mm", "dtype": "bf16", "m": 64, "n": 8192, "k": 8192}
    bound = 2 * 8192 * 8192 / 4.8e12
    records = label(records_of([FACTS | shape | {"seconds": bound * by} for by in (0.9, 1.5)]), H200)
    assert records["label"].tolist() == [BEATS, "ok"] and len(records.usable) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.sampled_from([(8, 2), (64, 6), (256, 8)]), st.sampled_from([1, 2, 8]),
       st.sampled_from(["balanced", "power_law_1.01", "power_law_1.2"]))  # fmt: skip
def test_histograms_are_those_of_the_busiest_rank(tokens: int, shape: tuple[int, int], ranks: int, law: str) -> None:
    drawn = histograms(tokens, *shape, ranks, law)
    mean = tokens * shape[1] / ranks
    assert drawn.shape[1] == shape[0] // ranks and drawn.min() >= 0 and drawn.max() <= tokens
    assert (drawn.sum(axis=1) >= np.floor(mean)).all()
    assert ranks > 1 or (drawn.sum(axis=1) == tokens * shape[1]).all()


def test_balanced_histograms_are_even() -> None:
    assert histograms(64, 64, 8, 1, "balanced").tolist() == [[8] * 64]
    with pytest.raises(BadInput, match="unknown distribution"):
        histograms(1, 8, 2, 1, "zipf")


def test_transport_has_two_sides() -> None:
    moved = transport(np.array([1.0, 3.0]), np.array([4.0, 1.5]))
    assert moved.too_slow == pytest.approx(0.375) and moved.too_fast == 0.0 and moved.wasserstein == moved.too_slow


def test_shapes_files(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("hidden,inter,topk,num_experts\n7168,2048,8,256\n")
    assert read_shapes(path) == {(7168, 2048, 8, 256)}
    for text, words in (("a,b\n", "first line"), ("hidden,inter,topk,num_experts\n1,2,x,4\n", "s.csv:2"),
                        ("hidden,inter,topk,num_experts\n", "no shape")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(BadInput, match=words):
            read_shapes(path)


def test_records_of_a_device_that_no_system_knows() -> None:
    row = FACTS | {"op": "gemm", "kernel": "mm", "seconds": 1e-6, "device": "NVIDIA H201"}
    with pytest.raises(BadInput, match="did you mean 'NVIDIA H200'"):
        system_of(records_of([row]))


def test_a_device_that_nobody_listed_is_described_by_a_topology() -> None:
    row = FACTS | {"op": "gemm", "kernel": "mm", "seconds": 1e-6, "device": "Own Accelerator"}
    with pytest.raises(BadInput, match="--topology FILE"):
        system_of(records_of([row]))
    own = system_of(records_of([row]), topology="dgx-a100")
    assert own.peaks("bf16").flops == 312e12 and own.facts.reported_as == ("Own Accelerator",)


def test_a_cache_counts_where_nobody_evicted_it() -> None:
    row = FACTS | {"op": "gemm", "kernel": "mm", "seconds": 1e-6, "device": "My 5090"}
    cold = row | {"provenance": "plan gpu-20m, harness 1, cold L2"}
    caches = [system_of(records_of([one]), topology="rtx-5090-pcie").facts.cache for one in (row, cold)]
    assert caches == [96 << 20, 0]


def test_tables_of_a_device_that_nobody_listed_are_read_with_its_topology() -> None:
    own = find_system("my_table", topology="rtx-5090-pcie")
    assert own.facts.table == "my_table" and own.device.name == "RTX-5090-32GB"
    with pytest.raises(BadInput, match="leave --topology out"):
        find_system("h200_sxm", topology="hgx-h200")
    with pytest.raises(BadInput, match="--topology FILE describes the device of another"):
        find_system("my_table")


def test_the_shipped_example_of_a_cpu_is_fitted(tmp_path: Path) -> None:
    records = read_records(Path(__file__).parents[2] / "calibration" / "measurements" / "cpu-example.parquet")
    fit_profile(records, system_of(records, topology="cpu-host")).write(tmp_path / "cpu")
    costs = load_costs(str(tmp_path / "cpu.yaml"), load_cluster("cpu-host").devices[0])
    seconds = costs.gemm([16, 256], 1024, 1024, "fp32").seconds
    assert 0 < seconds[0] < seconds[1] < 1


def experts(law: str, tokens: int, experts: int, hidden: int) -> dict[str, Any]:
    """20 us + the weights of active experts at 2 TB/s, as a record with the group sizes that ran."""
    drawn = histograms(tokens, experts, 2, 1, law)
    seconds = 20e-6 + float((drawn > 0).sum(axis=1).mean()) * 3 * hidden * 512 / 2e12
    return FACTS | {
        "op": "grouped_gemm", "kernel": "gg", "dtype": "fp8", "tokens": tokens, "hidden": hidden, "inter": 512,
        "topk": 2, "experts": experts, "matrices": 3, "distribution": law, "group_basis": "regenerated",
        "draws": len(drawn), "group_sizes": drawn.ravel().tolist(), "seconds": seconds,
    }  # fmt: skip


def test_each_way_of_holding_out_is_judged_and_says_what_it_cannot_judge(tmp_path: Path) -> None:
    laws = ("balanced", "power_law_0.8", "power_law_1.01", "power_law_1.2")
    cases = [(law, t, e, h) for law in laws for t in (16, 256, 2048) for e in (16, 32, 64) for h in (2048, 4096)]
    records = join([records_of([experts(*case) for case in cases]), gemms()])
    fit_profile(records, H200).write(tmp_path / "mine")
    judged = {way: check_profile(tmp_path / "mine.yaml", records, H200, way) for way in ("shape", "skew")}
    assert [len(found.operators) for found in judged.values()] == [2, 1]
    skew = judged["skew"].operators[0]
    assert set(skew.records["distribution"]) == {"power_law_1.2"} and skew.errors.absolute(0.5) < 0.08
    assert "nothing to hold out by skew: gemm/torch/mm/bf16" in judged["skew"].remark
    with pytest.raises(
        BadInput, match=r"none of the records can be judged \(nothing to hold out by world: .* and 1 more\)"
    ):
        check_profile(tmp_path / "mine.yaml", records, H200, "world")


def transfers() -> Records:
    """Collectives of two ranks' records: 3 us a round, 300 GB/s; NCCL's, and an engine's own all-reduce."""
    makers = (("nccl", "NCCL", "all_reduce"), ("nccl", "NCCL", "all_to_all"), ("vllm", "custom", "all_reduce"))
    rows = []
    for (backend, kernel, op), world, log in itertools.product(makers, (2, 4, 8), range(10, 30)):
        moved = 2**log * (world - 1) / world * (2 if op == "all_reduce" else 1)
        row = {"op": op, "backend": backend, "kernel": kernel, "dtype": "bf16", "world": world, "bytes": 2**log}
        rows += [FACTS | row | {"rank": rank, "seconds": 3e-6 * (world - 1) + moved / 300e9} for rank in (0, 1)]
    return records_of(rows)


def test_collectives_are_judged_on_unseen_world_sizes_by_who_made_them() -> None:
    found = held_out_errors(by_kernel(transfers()), H200)
    groups = {name: len(one.log) for name, one in found.items() if "/" not in name}
    assert groups == {"collectives": 360, "collectives_of_libraries": 240, "collectives_of_engines": 120}
    assert found["collectives"].absolute(0.5) < 0.08


def test_records_of_all_ranks_give_one_table_of_start_ups(tmp_path: Path) -> None:
    records = join([transfers(), gemms()])
    fit_profile(records, H200).write(tmp_path / "node")
    rings = load_costs(str(tmp_path / "node.yaml"), H200.device).communication["nccl_ring"]
    assert rings.startup("all_reduce", 8, 14, 2**10 * 2 * 7 / 8) == pytest.approx(21e-6, rel=0.01)
    judged = check_profile(tmp_path / "node.yaml", records, H200, "world")
    assert sorted(one.op for one in judged.operators) == ["all_reduce", "all_reduce", "all_to_all"]


def test_collectives_of_more_ranks_than_are_judged_harm_nobody(tmp_path: Path) -> None:
    large = records_of([FACTS | {"op": "all_reduce", "backend": "nccl", "kernel": "NCCL", "dtype": "bf16", "world": 16,
                                 "bytes": 2**log, "seconds": 1e-5} for log in range(10, 20)])  # fmt: skip
    assert held_out_errors(by_kernel(large), H200) == {}
    records = join([large, gemms()])
    fit_profile(records, H200).write(tmp_path / "wide")
    with pytest.raises(BadInput, match="only of more ranks than any profile is judged on"):
        check_profile(tmp_path / "wide.yaml", records, H200, "world")
    assert len(check_profile(tmp_path / "wide.yaml", records, H200, "size").operators) == 1


def both_ways(launch: float) -> Records:
    """The law's GEMMs and decodes, in a graph and launched by the host."""
    core: dict[str, Any] = {
        "op": "attention_decode", "kernel": "sdpa", "dtype": "bf16", "cache_dtype": "bf16", "heads": 32, "kv_heads": 4,
        "head_dim": 128, "query": 1,
    }  # fmt: skip
    cells = [(batch, context) for batch in (1, 4, 16, 64) for context in (127, 511, 2047, 8191)]
    decodes: list[dict[str, Any]] = [
        FACTS | core | {"batch": b, "context": c, "seconds": 5e-6 + b * (c + 1) * 2048 / 2e12} for b, c in cells
    ]
    prefills = [one | {"op": "attention_prefill", "query": one["context"], "context": 0} for one in decodes]
    rows = [*gemms().table.to_pylist(), *decodes, *prefills]
    eager = [row | {"mode": "eager", "seconds": row["seconds"] + launch} for row in rows]
    return records_of([*(row | {"mode": "graph"} for row in rows), *eager])


def test_what_runs_out_of_graphs_is_played_as_measured_there(tmp_path: Path) -> None:
    fitted = fit_profile(both_ways(7e-6), H200)
    roles = {role: name.rpartition("/")[2] for role, name in fitted.section["kernels"]["torch"].items()}
    assert roles == {"gemm.bf16": "graph", "gqa_decode.bf16": "graph", "gqa_prefill.bf16": "eager"}
    assert any("a launch costs 7.0 us more" in remark for remark in fitted.remarks)


def test_links_are_told_by_one_node_by_even_splits_and_by_graphs() -> None:
    base: dict[str, Any] = FACTS | {
        "op": "all_to_all", "backend": "nccl", "kernel": "nccl", "dtype": "bf16", "bytes": 1 << 20, "seconds": 1e-5,
    }  # fmt: skip
    ways: list[dict[str, Any]] = [
        {"nodes": 2}, {"distribution": "trace:x"}, {"mode": "eager"}, {"mode": "graph", "distribution": "balanced"},
    ]  # fmt: skip
    kept = telling(records_of([base | way for way in ways]))
    assert kept["mode"].tolist() == ["graph"]
    assert len(telling(records_of([base | {"mode": "eager"}]))) == 1


def test_own_copies_say_how_fast_bytes_move() -> None:
    base: dict[str, Any] = FACTS | {"op": "elementwise", "kernel": "mul", "dtype": "bf16", "mode": "graph"}
    rows = [base | {"bytes": 1 << log, "seconds": 3e-6 + (1 << log) / 4e12} for log in (12, 16, 20, 24, 28)]
    eager = [row | {"mode": "eager", "seconds": row["seconds"] + 9e-6} for row in rows]
    found = elementwise(records_of([*rows, *eager]), H200)
    assert found["basis"] == "fitted" and seconds(found["launch"]) == pytest.approx(3e-6, rel=0.02)
    assert bandwidth(found["bytes_per_second"]) == pytest.approx(4e12 * 0.447 / 0.85, rel=0.02)
    few = elementwise(records_of(rows[:2]), H200)
    assert few["basis"] == "assumed" and few["launch"] == "2 us"
