"""Records: a round trip, the two checksums, and rows that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from moesim.calibration.records import DIGEST, FIELDS, Records, join, read_records, records_of, write_records
from moesim.errors import BadInput
from moesim.shipped import shipped

ROW: dict[str, Any] = {
    "run": "r1", "device": "CPU", "device_class": "cpu", "op": "grouped_gemm", "backend": "torch",
    "kernel": "grouped_mm", "dtype": "bf16", "hidden": 64, "inter": 128, "group_sizes": [3, 0, 5], "draws": 1,
    "samples": [3e-3, 1e-3, 2e-3],
}  # fmt: skip


def test_a_row_is_completed_from_its_samples() -> None:
    records = records_of([ROW])
    assert records["seconds"].tolist() == [2e-3]
    assert records["label"].tolist() == ["ok"] and records["world"].tolist() == [1]
    assert records.lists("quantiles")[0].tolist() == pytest.approx([1.2e-3, 1.5e-3, 2e-3, 2.5e-3, 2.8e-3])


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    records = join([records_of([ROW]), records_of([ROW | {"split_matrix": [1, 2, 3, 4], "world": 2, "rank": 1}])])
    write_records(records, tmp_path / "r.parquet")
    assert read_records(tmp_path / "r.parquet").table.equals(records.table)


def test_lists_are_values_and_starts() -> None:
    records = records_of([ROW, ROW | {"group_sizes": []}, ROW | {"group_sizes": [7]}])
    values, starts = records.where(np.array([False, True, True])).lists("group_sizes")
    assert values.tolist() == [7] and starts.tolist() == [0, 0, 1]


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path, records = tmp_path / "r.parquet", records_of([ROW] * 100)
    write_records(records, path)
    whole, refused = path.read_bytes(), 0
    for place in range(4, len(whole), len(whole) // 16):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert read_records(path).table.equals(records.table)
        except BadInput as error:
            assert error.where == str(path)
            refused += 1
    assert refused >= 8


def test_a_file_of_before_has_no_number_of_nodes(tmp_path: Path) -> None:
    path, records = tmp_path / "r.parquet", records_of([ROW])
    old = Records(records.table.drop_columns(["nodes", "device_sms"]))
    write_records(old, path)
    assert read_records(path)["nodes"].tolist() == [1]


def test_an_edited_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_records(records_of([ROW]), path)
    table = pq.read_table(path)
    faster = Records(records_of([ROW | {"samples": [1e-3]}]).table.replace_schema_metadata(table.schema.metadata))
    assert table.schema.metadata[DIGEST]
    pq.write_table(faster.table, path)
    with pytest.raises(BadInput, match="sha256 differs"):
        read_records(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": [], "seconds": 0.0}, "non-positive"),
        ({"samples": []}, "missing"),
        ({"op": "gem"}, "did you mean 'gemm'"),
        ({"run": ""}, "no run"),
        ({"device_class": "tpu"}, "cuda or cpu"),
        ({"hiden": 3}, "no column 'hiden'"),
    ],
)
def test_rows_that_cannot_be(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        records_of([ROW | change])


def test_the_readme_names_every_column() -> None:
    text = (Path(__file__).parents[2] / "calibration" / "README.md").read_text()
    assert [name for name in FIELDS if f"| `{name}` |" not in text] == []


def test_the_shipped_example_is_whole_and_of_a_cpu() -> None:
    records = read_records(shipped("calibration", "measurements", "cpu-example.parquet"))
    assert set(records["device_class"]) == {"cpu"} and len(set(records["run"])) == 1
    sizes, starts = records.of(op="grouped_gemm").lists("group_sizes")
    assert np.diff(starts).min() > 0 and sizes.min() >= 0
    assert {"ok", "sentinel"} <= set(records["label"])
