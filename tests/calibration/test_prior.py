"""Kernels with few rows start from the nearest profile where that helps; roles nobody measured are lent, assumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from moesim.calibration.fit import fit_profile
from moesim.calibration.heldout import prepare
from moesim.calibration.prior import nearest, prior_profile, priors_of, with_prior
from moesim.calibration.records import Records, records_of, write_records
from moesim.calibration.systems import find_system, system_of
from moesim.cli.main import dispatch
from moesim.costs import load_costs
from moesim.errors import BadInput
from moesim.hardware import load_cluster

H200 = find_system("h200_sxm")
FACTS = {"run": "r", "device": "NVIDIA H200", "device_class": "cuda", "backend": "torch", "version": "1",
         "kernel": "mm", "op": "gemm", "dtype": "bf16", "provenance": "plan gpu-20m"}  # fmt: skip
SIZES = (1, 16, 64, 256, 1024, 4096)


def gemms(times: float, sizes: tuple[int, ...] = SIZES) -> Records:
    """What H200's shipped kernel takes, times a factor, for two matrices."""
    costs = load_costs("h200_sxm", H200.device)
    return records_of([
        FACTS | {"m": m, "n": n, "k": k, "seconds": times * float(costs.gemm(m, n, k, "bf16").seconds)}
        for n, k in ((4096, 2048), (2048, 7168)) for m in sizes
    ])  # fmt: skip


def test_few_rows_correct_a_prior_and_know_sizes_between_them() -> None:
    records = gemms(1.2)
    fitted = with_prior(prepare(records, H200.peaks("bf16")), priors_of(records, "h200_sxm", H200))
    between = gemms(1.2, (4, 33, 512, 2048, 9000))
    judged = prepare(between, H200.peaks("bf16"))
    found = fitted.prior.corrected("gemm", fitted.demands[fitted.prior.tile], fitted.seconds)  # type: ignore[union-attr]
    off = judged.predict(found, judged.sound) / judged.seconds - 1
    assert np.abs(off).max() < 0.03


def test_a_prior_of_another_law_is_not_taken() -> None:
    rows = [FACTS | {"m": m, "n": n, "k": 4096, "seconds": 1e-4 + 1e-6 * (m / 64) ** 0.5}
            for n in (1024, 4096) for m in (*range(1, 33, 3), 64, 128, 256, 512, 1024, 2048, 4096)]  # fmt: skip
    records = records_of(rows)
    assert with_prior(prepare(records, H200.peaks("bf16")), priors_of(records, "h200_sxm", H200)).prior is None


def test_a_device_is_nearest_to_itself_to_what_it_is_like_or_to_alike_rates() -> None:
    topologies = ("hgx-h200", "h100-pcie", "rtx-5090-pcie", "l40s-pcie")
    found = {name: nearest(load_cluster(name).devices[0]) for name in topologies}
    assert list(found.values())[:3] == ["h200_sxm", "h100_sxm", "rtx_pro_6000"] and found["l40s-pcie"]


def test_a_kernel_that_a_profile_was_fitted_to_is_no_prior_of_itself() -> None:
    own = records_of([FACTS | {"backend": "vllm", "kernel": "torch.nn.functional.linear", "m": 1, "n": 64, "k": 64,
                               "seconds": 1e-5}])  # fmt: skip
    assert not priors_of(own, "h200_sxm", H200) and priors_of(own, "h100_sxm", H200)


def test_a_run_of_dense_gemms_makes_a_profile_that_runs_any_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(gemms(1.3), tmp_path / "own.records")
    dispatch(["calibrate", "fit", str(tmp_path / "own.records"), "-o", str(tmp_path / "own")])
    said = capsys.readouterr().err
    assert "12 rows correct h200_sxm: gemm/" in said and "experts.fp8" in said
    section = yaml.safe_load((tmp_path / "own.yaml").read_text())
    lent = section["operators"][section["kernels"]["torch"]["experts.fp8"]]
    assert lent["basis"] == "assumed" and section["operators"]["gemm/torch/mm/bf16"]["basis"] == "fitted"
    own, shipped = (load_costs(name, H200.device) for name in (str(tmp_path / "own.yaml"), "h200_sxm"))
    assert float(own.gemm(100, 4096, 2048, "bf16").seconds) == pytest.approx(
        1.3 * float(shipped.gemm(100, 4096, 2048, "bf16").seconds), rel=0.05
    )
    assert own.gemm(100, 4096, 2048, "fp8").basis == "assumed"


def test_another_device_widens_what_it_lends() -> None:
    h100 = find_system("h100_sxm")
    records = records_of([one | {"device": "NVIDIA H100 80GB HBM3"} for one in gemms(1.0).table.to_pylist()])
    near, far = (fit_profile(records, h100, prior=name).section for name in ("h200_sxm", "b200_sxm"))
    role = "mla_decode.bf16"
    widths = [np.ptp(one["operators"][one["kernels"]["torch"][role]]["interval"]) for one in (near, far)]
    assert widths[1] > 1.0 and system_of(records).device.name == h100.device.name


def test_priors_by_name_are_known_ones_and_imported_tables_want_none() -> None:
    with pytest.raises(BadInput, match="h100_sxm"):
        prior_profile("h100", H200, gemms(1.0))
    imported = records_of(
        [FACTS | {"provenance": "aiconfigurator-core 0.12.0 t", "m": 1, "n": 8, "k": 8, "seconds": 1}]
    )
    assert prior_profile("auto", H200, imported) == prior_profile("none", H200, gemms(1.0)) == ""
    assert prior_profile("auto", H200, gemms(1.0)) == "h200_sxm"
