"""Runs of the harness on the CPU: stopping, going on, failing, drifting, throttling; two ranks over gloo."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from moesim.calibration.measure import attempt as attempts
from moesim.calibration.measure import probe
from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.cuda import slowdowns
from moesim.calibration.measure.local import on_local_ranks
from moesim.calibration.measure.nvml import Nvml
from moesim.calibration.measure.peers import Peers
from moesim.calibration.measure.plan import PlanSection, SamplingSection, load_plan
from moesim.calibration.measure.run import Summary, expand, measure
from moesim.calibration.measure.sampler import collect, still
from moesim.calibration.measure.sentinel import LABEL, in_random_order, without_drift
from moesim.calibration.measure.target import find_target
from moesim.calibration.operators import OPERATORS, grouped_gemm_fp8
from moesim.calibration.operators.operator import Place, Prepared
from moesim.calibration.records import read_records, records_of
from moesim.errors import BadInput, Interrupted, TryAgain

ALONE = Place(find_target("cpu"), Peers())
QUICK = SamplingSection.model_validate({"warm_up": "0 s", "stable": 0.5, "least": 3, "most": 20, "per_case": "10 ms"})
PLAN = load_plan("cpu-smoke").model_copy(
    update={"sampling": QUICK, "tokens": (4,), "sizes": (4096,), "operators": ("elementwise", "permute", "gemm")}
)
TOTAL = len(expand(PLAN, ALONE)[0])


def quiet(*_: float) -> None:
    """Nobody watches."""


def run(folder: Path, plan: PlanSection = PLAN, place: Place = ALONE, budget: float = 60.0) -> Summary:
    summary = measure(plan, place, folder, budget, quiet)
    assert summary is not None
    return summary


def test_a_whole_plan_becomes_records(tmp_path: Path) -> None:
    summary = run(tmp_path / "run")
    assert summary.complete and summary.measured == TOTAL and not summary.failed
    records = read_records(tmp_path / "run" / "records.parquet")
    assert len(records) == TOTAL
    assert set(records["device_class"]) == {"cpu"} and set(records["mode"]) == {"eager"}
    sizes, _ = records.of(op="permute").lists("group_sizes")
    assert sizes.sum() > 0
    assert len(set(records["run"])) == 1 and "CPU seconds" in records["provenance"][0]


def test_out_of_budget_it_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = run(folder, budget=0.0)
    assert not first.complete and first.path is None
    assert run(folder).complete
    assert run(folder, budget=0.0).complete  # nothing is left to do


def test_ctrl_c_keeps_finished_cases(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def stop(done: int, total: int, left: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=f"5 of {TOTAL} cases are kept"):
        measure(PLAN, ALONE, folder, 60.0, stop)
    assert len(read_records(folder / "partial.parquet")) == 5
    assert not (folder / "records.parquet").exists()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cases").iterdir()}
    assert run(folder).complete
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert not (folder / "partial.parquet").exists()


def test_a_case_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(case: Case, place: Place) -> Prepared:
        raise torch.OutOfMemoryError("tried to allocate 900 GiB")

    monkeypatch.setitem(OPERATORS, "permute", OPERATORS["permute"]._replace(prepare=too_large))
    summary = run(tmp_path / "run")
    assert summary.complete and summary.measured == TOTAL - len(summary.failed)
    assert all("out of memory: tried to allocate 900 GiB" in reason for _, reason in summary.failed)
    assert len(list((tmp_path / "run" / "failed").iterdir())) == len(summary.failed)
    monkeypatch.undo()
    again = run(tmp_path / "run")
    assert again.failed == summary.failed and again.measured == summary.measured  # not tried a second time
    retried = measure(PLAN, ALONE, tmp_path / "run", 60.0, quiet, retry=True)
    assert retried is not None and retried.measured == TOTAL and not retried.failed


@pytest.mark.parametrize("error", [ValueError("needs capability 9.0"), AssertionError(), TypeError("no such layout")])
def test_whatever_a_library_raises_is_one_failed_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refusing(case: Case, place: Place) -> Prepared:
        raise error

    monkeypatch.setitem(OPERATORS, "gemm", OPERATORS["gemm"]._replace(prepare=refusing))
    summary = run(tmp_path / "run")
    assert summary.complete and {case.operator for case, _ in summary.failed} == {"gemm"}
    assert {reason for _, reason in summary.failed} == {str(error) or "AssertionError"}


def test_a_dead_gpu_stops_the_run_once_for_each_case_that_kills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(case: Case, place: Place) -> Prepared:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(OPERATORS, "permute", OPERATORS["permute"]._replace(prepare=dead))
    deaths = 0
    while deaths < TOTAL:
        try:
            summary = run(tmp_path / "run")
        except TryAgain as error:
            assert "finished cases are kept, this one is left out" in str(error)
            deaths += 1
        else:
            break
    assert deaths == len(summary.failed) == TOTAL - summary.measured and summary.complete
    assert all("CUDA error" in reason for _, reason in summary.failed)


def test_a_case_that_ended_the_process_has_failed(tmp_path: Path) -> None:
    """As after a segmentation fault or a power cut: only the mark is left."""
    folder = tmp_path / "run"
    run(folder, budget=0.0)
    (folder / "trying").mkdir()
    (folder / "trying" / "00003.txt").write_text("gemm m=4\n")
    summary = run(folder)
    assert summary.complete and summary.measured == TOTAL - 1
    assert [reason for _, reason in summary.failed] == ["the process ended while it was measured"]
    assert not list((folder / "trying").iterdir())


def test_a_damaged_case_is_measured_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder)
    damaged = sorted((folder / "cases").iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert run(folder).measured == TOTAL
    assert len(read_records(damaged)) == 1


def test_a_probe_tries_one_tiny_case_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Case("gemm", "gemm", "fp32", shape(m=4, n=8, k=8))
    assert probe.refusal(tiny, "cpu") == ""
    assert probe.case_of(json.loads(json.dumps(asdict(grouped_gemm_fp8.TINY)))) == grouped_gemm_fp8.TINY
    assert probe.refusal(grouped_gemm_fp8.TINY, "cpu").startswith("a tiny grouped_gemm_fp8 fails: ")
    killed = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    assert probe.refusal(tiny, "cuda") == "a tiny gemm fails: it ended its process"


def test_nvml_is_asked_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    library = types.SimpleNamespace(
        NVMLError=OSError, NVML_CLOCK_SM=1, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetClockInfo=lambda gpu, kind: 1980, nvmlSystemGetDriverVersion=lambda: b"580.1",
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda gpu: 0x48,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = Nvml("GPU-1")
    assert found.clock() == (1980.0, 0x48) and found.driver() == "580.1"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml("GPU-1").clock() == (0.0, 0) and Nvml("GPU-1").driver() == ""


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", budget=0.0)
    with pytest.raises(BadInput, match=r"another plan.*tokens"):
        run(tmp_path / "run", PLAN.model_copy(update={"tokens": (8,)}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    with pytest.raises(BadInput, match="no run of this harness"):
        run(tmp_path / "other")


def test_a_clock_that_falls_twice_spoils_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("elementwise", "elementwise", "fp32", shape(bytes=4096))
    clocks = [2000.0, 1500.0] * 2
    monkeypatch.setattr(type(ALONE.target), "clock", lambda self: (clocks.pop(0), "power brake"))
    taken = attempts.attempt(case, ALONE, PLAN, 0.01)
    assert taken.label == "throttled: 2000 to 1500 MHz by power brake" and not clocks
    clocks += [2000.0, 1500.0, 2000.0, 2000.0]
    monkeypatch.setattr(type(ALONE.target), "clock", lambda self: (clocks.pop(0), ""))
    assert attempts.attempt(case, ALONE, PLAN, 0.01).label == "ok"


def test_sampling_stops_when_the_median_stands_still() -> None:
    rules = SamplingSection.model_validate({"stable": 0.005, "least": 30, "most": 1000})
    assert len(collect(lambda: 1.0, rules, 60.0, Peers())) == 30
    noisy = iter(range(1, 2000))
    assert len(collect(lambda: float(next(noisy)), rules, 60.0, Peers())) == 1000
    noisy = iter(range(1, 2000))
    assert len(collect(lambda: float(next(noisy)), rules, 0.0, Peers())) == 30
    assert still([1.0, 1.004, 1.0], 0.005) and not still([1.0, 1.004], 0.005) and not still([1.0, 1.0, 1.01], 0.005)


def test_order_is_random_but_the_same_with_sentinels_between() -> None:
    cases = [Case("elementwise", "elementwise", "fp32", shape(bytes=size)) for size in range(1, 31)]
    order = in_random_order(cases, PLAN)
    assert order == in_random_order(cases, PLAN) and order != cases
    marks = [place for place, case in enumerate(order) if case.label == LABEL]
    assert marks == [0, 11, 22, 33]
    assert sorted(case["bytes"] for case in order if not case.label) == list(range(1, 31))


def test_cases_beside_a_sentinel_that_moved_are_labelled() -> None:
    row = {"run": "r", "device": "d", "device_class": "cpu", "op": "gemm"}
    times = {0: 1.0, 2: 1.0, 4: 1.3, 6: 1.0}
    rows = [row | {"case": n, "samples": [t], "label": LABEL} for n, t in times.items()]
    rows += [row | {"case": n, "samples": [1.0]} for n in (1, 3, 5)]
    found = without_drift(records_of(rows), 0.05)
    labels = dict(zip(found["case"].tolist(), found["label"].tolist(), strict=True))
    assert labels[1] == "ok" and labels[3] == labels[5] == "drifted: sentinel +30%"


def test_what_cannot_run_here_is_said() -> None:
    order, refused = expand(
        PLAN.model_copy(update={"operators": ("elementwise", "all_reduce", "deepep_combine")}), ALONE
    )
    assert {case.op for case in order} == {"elementwise", "gemm"}
    assert {one.operator for one in refused} == {"all_reduce", "deepep_combine"}
    with pytest.raises(BadInput, match="nothing to measure here.*needs 2 ranks"):
        expand(PLAN.model_copy(update={"operators": ("all_reduce",)}), ALONE)
    with pytest.raises(BadInput, match="did you mean 'all_reduce'"):
        expand(PLAN.model_copy(update={"operators": ("allreduce",)}), ALONE)


def test_no_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="sees no GPU"):
        find_target("cuda")


def test_plans_are_strict(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("moesim_plan: 1\nname: x\ndevice: cpu\noperators: [gemm]\nmodels: [tiny-moe]\ndtype: [fp32]\n")
    with pytest.raises(BadInput, match=r"plan.yaml:6 .*did you mean 'dtypes'"):
        load_plan(str(path))
    with pytest.raises(BadInput, match="cpu-smoke"):
        load_plan("cpu-smok")


def test_bits_that_slow_a_gpu_down() -> None:
    assert slowdowns(0x48) == "hardware slowdown, hardware thermal slowdown"
    assert slowdowns(0x05) == ""  # idle at the power cap


def two_ranks(place: Place, folder: str) -> Summary | None:
    names = ("all_to_all", "all_reduce", "all_gather", "reduce_scatter", "point_to_point", "overlap", "moe_layer")
    return measure(PLAN.model_copy(update={"operators": names}), place, Path(folder), 60.0, quiet)


def test_two_ranks_measure_together(tmp_path: Path) -> None:
    summary, other = on_local_ranks(two_ranks, 2, str(tmp_path / "run"))
    assert summary is not None and summary.complete and not summary.failed and other is None
    records = read_records(tmp_path / "run" / "records.parquet")
    assert set(records["rank"]) == {0, 1} and set(records["world"]) == {2}
    exchanged = records.of(op="all_to_all")
    matrix, starts = exchanged.lists("split_matrix")
    assert set(starts[1:] - starts[:-1]) == {4} and matrix.min() >= 0
    assert set(exchanged["backend"]) == {"gloo"} and "wall seconds" in exchanged["provenance"][0]
    sizes, starts = records.of(op="moe_layer", distribution="trace:tiny-moe").lists("group_sizes")
    assert sizes[starts[0] : starts[1]].tolist() != sizes[starts[1] : starts[2]].tolist()  # each rank has its own
