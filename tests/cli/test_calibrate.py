"""`moesim calibrate fit` and `check`, on made-up experts: 20 us and their active weights at 2 TB/s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moesim.calibration.records import read_records, records_of, write_records

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

FACTS = {
    "run": "r", "device": "NVIDIA H200", "device_class": "cuda", "backend": "torch", "version": "1",
    "provenance": "a law", "op": "grouped_gemm", "kernel": "gg", "dtype": "fp8", "inter": 512, "topk": 2,
    "matrices": 3, "distribution": "balanced", "group_basis": "recorded", "draws": 1,
}  # fmt: skip
CSV = "hidden,inter,topk,num_experts\n"


@pytest.fixture
def measured(moesim: Moesim) -> str:
    """A records file in the folder that commands run in."""
    cases = [(hidden, experts, rows) for hidden in (1024, 2048, 4096) for experts in (8, 16, 32) for rows in (4, 64)]
    rows = [
        FACTS | {"hidden": hidden, "experts": experts, "tokens": experts * each // 2, "group_sizes": [each] * experts,
                 "seconds": 20e-6 + experts * 3 * hidden * 512 / 2e12}
        for hidden, experts, each in cases
    ]  # fmt: skip
    write_records(records_of(rows), Path("mine.parquet"))
    return "mine.parquet"


def test_shapes_of_ones_own_are_left_out_and_judged(moesim: Moesim, measured: str) -> None:
    Path("s.csv").write_text(CSV + "2048,512,2,16\n9,9,9,9\n")
    assert moesim("calibrate", "fit", measured, "-o", "every").code == 0
    left_out = moesim("calibrate", "fit", measured, "--exclude-shapes", "s.csv", "-o", "without")
    assert left_out.code == 0 and "│ 16 " in left_out.out and "s.csv: no record is of 9/9/9/9" in left_out.err
    done = moesim("calibrate", "check", "without.yaml", "--against", measured, "--shapes", "s.csv", "--json")
    document = json.loads(done.out)
    assert document["breakdown"]["grouped_gemm/torch/gg/fp8"]["rows"] == 2
    assert document["metrics"]["grouped_gemm_p90_abs_error"]["value"] < 0.1


def test_shapes_that_no_record_is_of_are_refused(moesim: Moesim, measured: str) -> None:
    Path("s.csv").write_text(CSV + "1,1,1,1\n")
    done = moesim("calibrate", "fit", measured, "--exclude-shapes", "s.csv", "-o", "without")
    assert done.code == 2 and "s.csv: no record is of its shapes" in done.err and not Path("without.yaml").exists()


def test_a_way_that_leaves_nothing_to_judge_is_refused(moesim: Moesim, measured: str) -> None:
    assert moesim("calibrate", "fit", measured, "-o", "every").code == 0
    done = moesim("calibrate", "check", "every.yaml", "--against", measured, "--holdout", "world")
    assert done.code == 2 and "nothing to hold out by world: grouped_gemm/torch/gg/fp8" in done.err


def test_an_unknown_profile_is_named_before_the_records_are_read(moesim: Moesim) -> None:
    done = moesim("calibrate", "check", "h200_smx", "--against", "nothing.parquet")
    assert done.code == 2 and "did you mean 'h200_sxm'" in done.err


def test_a_profile_of_an_earlier_version_says_what_to_do(moesim: Moesim, measured: str) -> None:
    assert moesim("calibrate", "fit", measured, "-o", "old").code == 0
    Path("old.yaml").write_text(Path("old.yaml").read_text().replace("moesim_profile: 4", "moesim_profile: 2"))
    done = moesim("calibrate", "check", "old.yaml", "--against", measured)
    assert done.code == 2 and "old.yaml:1" in done.err and "moesim calibrate fit" in done.err


def test_a_profile_never_replaces_its_records_and_stands_where_it_was_asked_to(moesim: Moesim, measured: str) -> None:
    before = Path(measured).read_bytes()
    refused = moesim("calibrate", "fit", measured, "-o", "mine")
    assert refused.code == 2 and "its own records" in refused.err and Path(measured).read_bytes() == before
    assert moesim("calibrate", "fit", measured, "-o", "v1.2").code == 0 and Path("v1.2.yaml").exists()
    Path("taken.yaml").mkdir()
    assert moesim("calibrate", "fit", measured, "-o", "taken").code == 2 and not Path("taken.parquet").exists()
    assert moesim("calibrate", "fit", measured, "-o", "").code == 2


def test_a_profile_without_its_own_grids_is_refused(moesim: Moesim, measured: str) -> None:
    for name in ("one", "other"):
        assert moesim("calibrate", "fit", measured, "-o", name).code == 0
    Path("one.parquet").write_bytes(Path("other.parquet").read_bytes() + b"x")
    damaged = moesim("calibrate", "check", "one.yaml", "--against", measured)
    Path("one.parquet").unlink()
    missing = moesim("calibrate", "check", "one.yaml", "--against", measured)
    assert damaged.code == missing.code == 2 and "of another profile" in damaged.err and "No such file" in missing.err


def test_one_shape_is_judged_by_unseen_sizes(moesim: Moesim, measured: str) -> None:
    records = read_records(Path(measured))
    single = records.where((records["hidden"] == 2048) & (records["experts"] == 16))
    write_records(single, Path("single.parquet"))
    done = moesim("calibrate", "fit", "single.parquet", "-o", "own")
    assert done.code == 0 and "│ size " in done.out
    write_records(single.where(single["tokens"] == 32), Path("row.parquet"))
    refused = moesim("calibrate", "fit", "row.parquet", "-o", "own")
    assert refused.code == 2 and "1 sound rows of a single shape and size" in refused.err


def test_all_shapes_at_once_leave_nothing_to_fit_on(moesim: Moesim, measured: str) -> None:
    shapes = "".join(f"{hidden},512,2,{experts}\n" for hidden in (1024, 2048, 4096) for experts in (8, 16, 32))
    Path("s.csv").write_text(CSV + shapes)
    assert moesim("calibrate", "fit", measured, "-o", "every").code == 0
    command = ("calibrate", "check", "every.yaml", "--against", measured, "--shapes", "s.csv", "--holdout", "shape")
    done = moesim(*command)
    assert done.code == 2 and "nothing to hold out by shape" in done.err


def test_a_known_device_is_no_other(moesim: Moesim, measured: str) -> None:
    done = moesim("calibrate", "fit", measured, "-o", "wrong", "--topology", "dgx-a100")
    assert done.code == 2 and "NVIDIA H200 is known" in done.err


def test_check_names_a_distance(moesim: Moesim) -> None:
    """The condition tells cases apart that Wasserstein's distance takes for each other."""
    judged = ("calibrate", "check", "cpu", "--against", "cpu-example", "--topology", "cpu-host", "--json")
    far = json.loads(moesim(*judged, "--distance", "conditional", "--scale", "1").out)["metrics"]
    assert far["grouped_gemm_conditional"]["value"] > far["grouped_gemm_wasserstein"]["value"]
    refused = moesim(*judged, "--distance", "entropic", "--scale", "1e-7")
    assert refused.code == 2 and "too sharp" in refused.err and "--scale 1e-06" in refused.err
    assert moesim(*judged, "--distance", "gibbs", "--scale", "nan").code == 2
    idle = moesim(*judged, "--scale", "1")
    assert idle.code == 2 and "--scale: has nothing to act on. Try: --distance" in idle.err
