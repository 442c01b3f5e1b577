"""A run is what it was computed from: the order of a pipeline that stands in a file, too."""

from __future__ import annotations

from pathlib import Path

from moesim.studies.inputs import hash_of
from moesim.studies.training import load_training, training_files


def test_another_order_in_the_same_file_is_another_run(tmp_path: Path) -> None:
    path, found = tmp_path / "o.csv", []
    for text in ("0F0,0F1,0B0,0B1", "0F0,0F1,0B1,0B0", "0F0,0F1,0B0,0B1"):
        path.write_text(text)
        scenario = load_training("qwen3-train-16", (f"pipeline.schedule={path}",)).scenario
        found.append(hash_of(scenario, training_files(scenario)))
    assert found[0] == found[2] != found[1]
