"""`moesim calibrate fit` and `check`, on made-up experts: 20 us and their active weights at 2 TB/s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moesim.calibration.records import records_of, write_records

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
    Path("old.yaml").write_text(Path("old.yaml").read_text().replace("moesim_profile: 3", "moesim_profile: 2"))
    done = moesim("calibrate", "check", "old.yaml", "--against", measured)
    assert done.code == 2 and "old.yaml:1" in done.err and "moesim calibrate fit" in done.err
