"""Runs are stored whole, and found again by folder, file or the first digits of their hash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moesim.errors import BadInput
from moesim.report import stored

DOCUMENT = {"metrics": {}, "breakdown": {}, "provenance": {}, "warnings": ["µ"]}
DRAWN = {"name": "a"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("runs/abc123")
    stored.save(stored.StoredRun(path, DOCUMENT, DRAWN), "name: a\n")
    return path


def test_a_run_is_found_by_folder_file_and_digits(folder: Path) -> None:
    for name in (str(folder), str(folder / "result.json"), "abc123", "ab"):
        run = stored.open_run(name)
        assert (run.document, run.pictures) == (DOCUMENT, DRAWN)


def test_digits_that_fit_two_runs_are_refused(folder: Path) -> None:
    stored.save(stored.StoredRun(Path("runs/abd"), DOCUMENT, DRAWN), "")
    with pytest.raises(BadInput, match="abc123, abd"):
        stored.open_run("ab")


def test_an_unknown_run_names_the_nearest(folder: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'abc123'"):
        stored.open_run("xbc123")


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 100_000])
def test_a_damaged_file_is_refused(folder: Path, text: str) -> None:
    (folder / "result.json").write_text(text)
    with pytest.raises(BadInput, match="sha256 differs"):
        stored.open_run("abc123")


def test_the_hash_is_the_same_in_every_process() -> None:
    command = "from moesim.report.stored import run_hash; print(run_hash('a', 0, '1'))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert seen == {stored.run_hash("a", 0, "1")}
