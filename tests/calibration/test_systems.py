"""Devices of one's own: few lines over the shipped systems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moesim.calibration import aiconfigurator
from moesim.calibration.records import records_of
from moesim.calibration.systems import find_system, system_of
from moesim.cli.main import dispatch, guarded
from moesim.errors import BadInput

MINE = "systems:\n  my_5090:\n    topology: rtx-5090-pcie\n"
ROW = {"run": "r", "device_class": "cuda", "op": "gemm", "kernel": "mm", "dtype": "bf16", "seconds": 1e-6}


def overlay(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_one_device_is_three_lines(tmp_path: Path) -> None:
    own = find_system("my_5090", overlay(tmp_path, MINE))
    assert own.facts.reported_as == ("my_5090",) and own.facts.table == "my_5090"
    assert own.cache == own.device.cache_bytes == 96 << 20
    assert own.constants.communication == find_system("h200_sxm").constants.communication


def test_drivers_and_tables_names_are_those_given_beside_it(tmp_path: Path) -> None:
    path = overlay(tmp_path, MINE + "    table: rtx5090\n    reported_as: [NVIDIA GeForce RTX 5090]\n")
    for name in ("my_5090", "rtx5090", "NVIDIA GeForce RTX 5090"):
        assert system_of(records_of([ROW | {"device": name}]), path).name == "my_5090"
    assert system_of(records_of([ROW | {"device": "NVIDIA H200"}]), path).name == "h200_sxm"


def test_ones_own_system_has_the_say_on_a_name_that_is_known(tmp_path: Path) -> None:
    path = overlay(tmp_path, "systems:\n  lab:\n    topology: hgx-h200\n    reported_as: [NVIDIA H200]\n")
    assert system_of(records_of([ROW | {"device": "NVIDIA H200"}]), path).name == "lab"
    path = overlay(tmp_path, "systems:\n  h200_sxm: {cache: 60 MB}\n")
    assert find_system("h200_sxm", path).cache == 60_000_000
    assert find_system("h200_sxm", path).facts.topology == "hgx-h200"


def test_a_constant_is_replaced_with_its_source(tmp_path: Path) -> None:
    path = overlay(tmp_path, "communication:\n  nccl:\n    alpha: 9 us\n")
    with pytest.raises(BadInput, match=r"mine.yaml:2 communication.nccl.*"):
        find_system("h200_sxm", path)
    path = overlay(
        tmp_path, "communication:\n  nccl: {alpha: 9 us, efficiency: {nvlink: 0.5}, basis: assumed, source: me}\n"
    )
    found = find_system("h200_sxm", path).constants.communication
    assert found["nccl"].alpha == 9e-6 and found["nccl"].source == "me" and found["nccl"].per_message == 0.0
    assert found["nccl_ring"] == find_system("h200_sxm").constants.communication["nccl_ring"]
    with pytest.raises(BadInput, match=r"mine.yaml:1 elementwise_of_peak: is changed.*Try: elementwise_source"):
        find_system("h200_sxm", overlay(tmp_path, "elementwise_of_peak: 0.9\n"))
    own = overlay(tmp_path, "elementwise_of_peak: 0.9\nelementwise_source: my tables\n")
    assert find_system("h200_sxm", own).constants.elementwise_of_peak == 0.9


def test_a_misspelt_key_is_said_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = overlay(tmp_path, MINE + "    reported: [NVIDIA GeForce RTX 5090]\n")
    words = ["calibrate", "import", "aiconfigurator", "--system", "my_5090", "--systems", str(path), "-o", "x"]
    assert guarded(lambda: dispatch(words)) == 2
    assert "mine.yaml:4" in capsys.readouterr().err


def test_tables_of_a_new_device_become_a_profile_that_prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Import, fit and ask, with nothing of one's own but the table and a topology; the device's name is the table's."""
    folder = tmp_path / "data" / "my_5090" / "gemm" / "vllm" / "0.24.0"
    folder.mkdir(parents=True)
    rows: dict[str, Any] = {"gemm_dtype": [], "m": [], "n": [], "k": [], "latency": [], "kernel_source": []}
    for n in (1024, 4096):
        for m in (1, 16, 64, 256, 1024, 4096):
            took = 5e-3 + 1e3 * max(2 * m * n * 4096 / 150e12, 2 * (m * 4096 + n * 4096 + m * n) / 1.5e12)  # ms
            for name, value in zip(rows, ("bfloat16", m, n, 4096, took, "linear"), strict=True):
                rows[name].append(value)
    pq.write_table(pa.table(rows), folder / "gemm_perf.parquet")
    monkeypatch.setattr(aiconfigurator, "tables_folder", lambda: tmp_path / "data")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.12.0")
    monkeypatch.chdir(tmp_path)
    words = ["calibrate", "import", "aiconfigurator", "--system", "my_5090", "--topology", "rtx-5090-pcie", "-o", "r"]
    assert guarded(lambda: dispatch(words)) == 0
    (tmp_path / "mine.yaml").write_text(MINE)
    assert guarded(lambda: dispatch(["calibrate", "fit", "r", "--systems", "mine.yaml", "-o", "my"])) == 0
    assert guarded(lambda: dispatch(["calibrate", "check", "my.yaml", "--against", "r", "--systems", "mine.yaml",
                                     "--json"])) == 0  # fmt: skip
    found = json.loads("{" + capsys.readouterr().out.partition("\n{")[2])
    assert found["metrics"]["gemm_median_abs_error"]["value"] < 0.05


def test_absorbed_projections_are_the_sum_of_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cell was measured twice, one lacks its way back, and fp8 weights are what nobody serves unasked."""
    folder = tmp_path / "mine" / "mla_bmm" / "sglang" / "0.5.14"
    folder.mkdir(parents=True)
    rows = [("mla_gen_pre", "bfloat16", 1, 16, 4e-3), ("mla_gen_post", "bfloat16", 1, 16, 5e-3),
            ("mla_gen_pre", "bfloat16", 1, 16, 6e-3), ("mla_gen_pre", "bfloat16", 8, 16, 7e-3),
            ("mla_gen_pre", "fp8", 1, 16, 9e-3), ("mla_gen_post", "fp8", 1, 16, 9e-3)]  # fmt: skip
    names = ("op_name", "bmm_dtype", "num_tokens", "num_heads", "latency")
    table = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    pq.write_table(pa.table(table | {"kernel_source": ["bmm"] * len(rows)}), folder / "mla_bmm_perf.parquet")
    monkeypatch.setattr(aiconfigurator, "tables_folder", lambda: tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.12.0")
    found = aiconfigurator.import_tables("mine")
    assert (found["op"].tolist(), found["tokens"].tolist(), found["heads"].tolist()) == (["absorbed"], [1], [16])
    assert found["seconds"].tolist() == pytest.approx([10e-6])


def test_encoders_see_whole_sequences_and_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine" / "encoder_attention" / "vllm" / "0.24.0"
    folder.mkdir(parents=True)
    row = {"batch_size": 2, "isl": 577, "num_heads": 16, "head_dim": 72, "attn_dtype": "bfloat16", "latency": 0.02,
           "kernel_source": "fa"}  # fmt: skip
    table = pa.table({name: [value] for name, value in row.items()})
    pq.write_table(table, folder / "encoder_attention_perf.parquet")
    monkeypatch.setattr(aiconfigurator, "tables_folder", lambda: tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.12.0")
    found = aiconfigurator.import_tables("mine")
    names = ("op", "query", "context", "batch", "heads", "kv_heads", "head_dim", "seconds")
    assert [found[name].tolist()[0] for name in names] == ["attention_encoder", 577, 0, 2, 16, 16, 72, 20e-6]
