"""validate serving: small tables, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from moesim import shipped
from moesim.report.validation_tables import WAYS
from moesim.studies.validation import serving, serving_kinds, serving_runs
from moesim.studies.validation.checkpoints import shipped_model
from moesim.studies.validation.rows import read_rows
from moesim.studies.validation.serving_band import WIDTHS, band_of, learned
from moesim.studies.validation.systems import topology_of
from moesim.studies.validation.validation import Point

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

APART = {"attention_dp_size": "2", "moe_tp_size": "1", "moe_ep_size": "4"}
SHIPPED = shipped.shipped(*serving.DATA)


def some(tmp_path: Path, wanted: str, **changes: str) -> Path:
    """A file of the shipped rows whose id begins so, with changed cells."""
    rows = [row for row in csv.DictReader(SHIPPED.read_text().splitlines()) if row["id"].startswith(wanted)]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, **changes} for row in rows[:2])
    return path


def test_shipped_rows_are_all_understood_or_refused_by_name() -> None:
    rows = [row for _, row in read_rows(SHIPPED, serving.COLUMNS)]
    assert len(rows) == 577
    kinds = {serving_kinds.Kind.of(row) for row in rows}
    assert {kind.backend for kind in kinds} == set(serving_kinds.CAMPAIGNS)
    assert {topology_of(kind.system) for kind in kinds} == {"dgx-h100", "dgx-b200"}


@pytest.mark.parametrize("system", ["h200_sxm", "gb200", "GB300_NVL72", "b300_sxm", "h20"])
def test_rows_of_other_systems_are_served(moesim: Moesim, tmp_path: Path, system: str) -> None:
    path = some(tmp_path, "openai_gpt_oss_120b", concurrency="2", isl="256", osl="32", system=system)
    done = moesim("validate", "serving", "--data", str(path), "--json")
    document = json.loads(done.out)
    assert document["metrics"]["answered_fraction"]["value"] == 1, done.err
    assert set(document["provenance"]["carried"]) == ({system} if system not in ("h200_sxm", "gb200") else set())


def test_rows_of_models_without_experts_are_served(moesim: Moesim, tmp_path: Path) -> None:
    """Their file has columns of experts, as it is of one shape for all models."""
    path = some(tmp_path, "openai_gpt_oss_120b", model_path="Qwen/Qwen3-32B", gemm_quant_mode="fp8_block",
                moe_quant_mode="fp8_block", concurrency="2", isl="256", osl="32")  # fmt: skip
    document = json.loads(moesim("validate", "serving", "--data", str(path), "--json").out)
    assert document["metrics"]["answered_fraction"]["value"] == 1, document


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mode": "disagg"}, "two pools"),
        ({"pp_size": "2"}, "no pipeline stages"),
        ({"system": "h300"}, "unknown system"),
    ],
)
def test_rows_that_are_something_else_are_refused(
    moesim: Moesim, tmp_path: Path, changes: dict[str, str], why: str
) -> None:
    done = moesim("validate", "serving", "--data", str(some(tmp_path, "openai_gpt_oss_120b", **changes)))
    assert done.code == 2 and why in done.err


@pytest.mark.parametrize(
    ("checkpoint", "shipped"),
    [("nvidia/DeepSeek-R1-0528-NVFP4-v2", "deepseek-ai/DeepSeek-V3"), ("zhipuai/GLM-5", "zai-org/GLM-5"),
     ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "Qwen/Qwen3-235B-A22B"),
     ("moonshotai/Kimi-K2.5", "nvidia/Kimi-K2.5-NVFP4"),
     ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/Meta-Llama-3-70B"),
     ("deepseek-ai/DeepSeek-V3.2-Exp", "deepseek-ai/DeepSeek-V3.2"),
     ("Qwen/Qwen3-235B-A22B-FP8", "Qwen/Qwen3-235B-A22B-FP8"), ("mine/other-7B", "mine/other-7B"),
     ("nvidia/FP8", "nvidia/FP8"), ("", "")],
)  # fmt: skip
def test_checkpoints_of_one_architecture_are_one_model(checkpoint: str, shipped: str) -> None:
    assert shipped_model(checkpoint) == shipped


def test_a_row_is_served_and_told(moesim: Moesim, tmp_path: Path) -> None:
    path = some(tmp_path, "openai_gpt_oss_120b", concurrency="4", isl="1024", osl="128")
    done = moesim("validate", "serving", "--data", str(path), "--json", "--out", "rows.csv")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    rows = document["provenance"]["rows"]
    assert len(rows) == 4 and document["metrics"]["answered_fraction"]["value"] == 1
    of_tpot = [abs(row["error"]) for row in rows if row["metric"] == "tpot"]
    assert document["metrics"]["tpot_mean_abs_error"]["value"] == pytest.approx(np.mean(of_tpot))
    assert document["breakdown"]["backend"]
    assert len(list(csv.DictReader(Path("rows.csv").read_text().splitlines()))) == 4


def test_ranks_with_requests_of_their_own_are_served(moesim: Moesim, tmp_path: Path) -> None:
    """Attention data parallel 2 on experts parallel 2, four clients."""
    some_rows = {"concurrency": "4", "isl": "1024", "osl": "64", "tp_size": "1", **APART, "moe_ep_size": "2"}
    path = some(tmp_path, "openai_gpt_oss_120b", **some_rows)
    done = moesim("validate", "serving", "--data", str(path), "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["metrics"]["answered_fraction"]["value"] == 1
    assert list(document["breakdown"]["parallelism"]) == ["attention DP2, EP2"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"system": "tpu"}, "unknown system 'tpu'"), ({"isl": "0"}, "isl '0' is no positive number"),
        ({"concurrency": "1.5"}, "no whole number"), ({"moe_quant_mode": "int3"}, "quantisation 'int3'"),
        ({"model_path": "nobody/nothing"}, "unknown model"), ({"tp_size": "2", **APART}, "sums only"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_served_are_refused(
    moesim: Moesim, tmp_path: Path, changes: dict[str, str], says: str
) -> None:  # fmt: skip
    done = moesim("validate", "serving", "--data", str(some(tmp_path, "openai_gpt_oss_120b", **changes)))
    assert done.code == 2 and says in done.err


def test_a_table_without_its_columns_is_refused(moesim: Moesim) -> None:
    Path("t.csv").write_text("id,backend\n1,vllm\n")
    done = moesim("validate", "serving", "--data", "t.csv")
    assert done.code == 2 and "t.csv:1: no column 'model_path'" in done.err


def test_constants_are_told_apart(moesim: Moesim, tmp_path: Path) -> None:
    """A row is played with the preset's constants, with those fitted without its model and system, and with none."""
    path = some(
        tmp_path, "openai_gpt_oss_120b", concurrency="4", isl="1024", osl="128", backend="vllm", system="b200_sxm"
    )
    done = moesim("validate", "serving", "--data", str(path), "--json")
    found = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
    ttft = [found[f"ttft_geometric_mean_ratio{way}"] for way in WAYS]
    assert tuple(WAYS) == serving.WAYS and len(set(ttft)) == 3 and min(ttft) == ttft[2]
    assert all(head in moesim("validate", "serving", "--data", str(path)).out for head in WAYS.values())


def test_a_band_is_that_of_other_systems() -> None:
    """By hand: of |log| 0.1, 0.2, 0.3 and 0.4 the 80 % quantile is 0.34; a system's own rows do not count for it. One
    that has none is as far off as constants are that never saw a row: twice as far here.
    """
    keys = {"metric": "tpot", "flag": "ok", "backend": "vllm", "model": "m"}
    off = {"a": (0.1, 0.2, 0.3, 0.4), "b": (1.0, 1.0)}
    points = [
        Point({**keys, "system": system}, "ms", float(np.exp(one)), 1.0) for system, some in off.items() for one in some
    ]
    unseen = [Point(one.keys, "ms", one.measured**2, 1.0) for one in points]
    found = learned([*points, Point({**keys, "flag": "mtp", "system": "a"}, "ms", 99.0, 1.0)], unseen)
    assert found == {"vllm": {"": 2.0, "m a": 1.0, "m b": 0.34}}
    known = Point({**keys, "model": "openai/gpt-oss-120b", "system": "b200_sxm"}, "ms", 1.0, 1.0)
    low, high = band_of(known) or (0.0, 0.0)
    assert high == pytest.approx(np.exp(WIDTHS["vllm"]["openai/gpt-oss-120b b200_sxm"]))
    assert low * high == pytest.approx(1.0)
    assert band_of(Point({**keys, "backend": "other", "system": "a"}, "ms", 1.0, 1.0)) is None


def test_dense_runs_are_compared_request_by_request(tmp_path: Path) -> None:
    """The first 20 requests of a run, alone."""
    run = next(one for one in serving_runs.runs() if one.tensor == 1)
    lines = run.path.read_text().splitlines(keepends=True)
    path = tmp_path / run.path.name
    path.write_text("".join(lines[:21]))
    found = serving_runs.compared(serving_runs.Run(path, run.model, 1))
    rows = list(csv.DictReader(lines[:21]))
    first = [float(row["first_token_s"]) - float(row["queued_s"]) for row in rows]
    assert found["ttft"]["mean"][0] == pytest.approx(np.mean(first) * 1e3)
    assert set(found["tpot"]) == {"mean", "p10", "p50", "p90"}
    assert all(0 < predicted < measured for measured, predicted in found["tpot"].values())  # 280 others came meanwhile
