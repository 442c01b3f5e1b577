"""A user's table of quality beside simulated costs: joined by keys, never made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moesim import sweep
from moesim.errors import BadInput
from moesim.studies.sweeping.quality import read_quality
from moesim.studies.sweeping.store import Kept

KEYS = {"precision.experts", "batch.context"}


def table(folder: Path, text: str) -> Path:
    path = folder / "q.csv"
    path.write_text(text)
    return path


def test_a_line_is_found_by_all_of_its_keys_and_equal_numbers_are_equal(tmp_path: Path) -> None:
    path = table(tmp_path, "accuracy,batch.context,precision.experts\n0.8,64,bf16\n\n0.7,1e2,bf16\n0.6,64,fp8\n")
    found = read_quality(path, KEYS.__contains__)
    assert found.keys == ("batch.context", "precision.experts")
    assert found.of({"batch.context": 100, "precision.experts": "bf16"}) == {"quality.accuracy": 0.7}
    assert found.of({"batch.context": 64.0, "precision.experts": "fp8"}) == {"quality.accuracy": 0.6}
    with pytest.raises(BadInput, match=r"no line for batch.context=100, precision.experts=fp8"):
        found.of({"batch.context": 100, "precision.experts": "fp8"})


def test_points_without_numbers_get_none_and_others_keep_theirs(tmp_path: Path) -> None:
    found = read_quality(table(tmp_path, "batch.context,loss\n64,2.5\n"), KEYS.__contains__)
    record = {"metrics": {"a": {"value": 1, "unit": "s"}}, "breakdown": {}}
    beside = found.beside(Kept(0, b"x", json.dumps(record).encode()), {"batch.context": 64})
    assert beside.record["metrics"] == record["metrics"] | {"quality.loss": {"value": 2.5, "unit": "as given"}}
    failed = Kept(3, b"y", b'{"metrics": {}, "breakdown": {}}')
    assert found.beside(failed, {"batch.context": 64}) == failed


def test_a_sweep_from_python_joins_what_the_scenario_sets_itself(tmp_path: Path) -> None:
    """batch.context is no axis: the scenario's own 128 says which line counts. Numbers of runs stay the same."""
    path = table(tmp_path, "batch.context,accuracy\n512,0.5\n128,0.9\n")
    over = {"batch.tokens_per_gpu": [16, 32]}
    plain = sweep("demo-tiny", over, folder=tmp_path / "s")
    joined = sweep("demo-tiny", over, folder=tmp_path / "s", quality=path)
    assert joined.ran == 0 and joined.values("quality.accuracy") == [0.9, 0.9]
    assert joined.values("step_time_s") == plain.values("step_time_s")
    assert "not predicted" in joined.said_with()[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no lines"),
        ("batch.context,accuracy\n", "has no lines"),
        ("batch.context,batch.context\n1,2\n", "names a column twice"),
        ("batch.context\n64\n", "nothing to join"),
        ("accuracy,loss\n1,2\n", "no column of accuracy, loss is a key"),
        ("batch.context,accuracy\n64,0.5,3\n", "q.csv:2: has 3 cells, the header 2"),
        ("batch.context,accuracy\n64,good\n", "q.csv:2: accuracy: 'good' is no number"),
        ("batch.context,accuracy\n64,nan\n", "'nan' is no number"),
        ("batch.context,batch.contxt,accuracy\n64,fp8,1\n", "batch.contxt is no key that this sweep sets or varies"),
        ("batch.context,accuracy\n64,1\n64.0,2\n", "q.csv:3: is about the same setting as line 2"),
        ('batch.context,accuracy\n64,"1\n', "is damaged or no table of quality"),
    ],
)
def test_tables_that_say_nothing_or_two_things_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_quality(table(tmp_path, text), KEYS.__contains__)
    assert said in str(caught.value)


def test_a_section_that_is_varied_whole_joins_by_the_keys_in_it(tmp_path: Path) -> None:
    """The scenario's own 128 stands nowhere in these points: 64 and 512 are theirs."""
    path = table(tmp_path, "batch.context,accuracy\n64,0.5\n128,0.7\n512,0.9\n")
    batches = [{"phase": "decode", "tokens_per_gpu": 64, "context": context} for context in (64, 512)]
    found = sweep("demo-tiny", {"batch": batches}, folder=tmp_path / "points", quality=path, jobs=0)
    assert [one.record["metrics"]["quality.accuracy"]["value"] for one in found.kept] == [0.5, 0.9]
    path = table(tmp_path, "precision.experts,accuracy\nbf16,0.9\n")
    with pytest.raises(BadInput, match="says nothing of precision.experts"):
        sweep("demo-tiny", {"precision": [{"weights": "fp8"}]}, folder=tmp_path / "points", quality=path, jobs=0)
