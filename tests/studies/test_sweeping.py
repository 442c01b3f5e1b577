"""Designs by hand, stores against killers, processes that die."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim import yamlfile
from moesim.errors import TryAgain
from moesim.studies.sweeping import Axis, Plan, Point, read_plan, sweep
from moesim.studies.sweeping import plan as plans
from moesim.studies.sweeping.axes import Interval, flow, read_axis
from moesim.studies.sweeping.design import combine, spread
from moesim.studies.sweeping.executor import LOST, Answer, Processes
from moesim.studies.sweeping.sources import sources_digest
from moesim.studies.sweeping.store import Store
from moesim.studies.sweeping.subject import Subject

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=8),
    lambda inner: st.lists(inner, max_size=3), max_leaves=6,
)  # fmt: skip


class Fixed:
    """Answers every point with its seed; `fails` codes come first."""

    def __init__(self, *fails: int) -> None:
        self.fails, self.asked = list(fails), 0

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        for point in points:
            self.asked += 1
            code = self.fails.pop(0) if self.fails else 0
            metrics = {"x": {"value": float(point.seed), "unit": "1"}}
            yield Answer(point, code, None if code else {"metrics": metrics, "breakdown": {}, "warnings": []}, "why")


def small(*settings: str, seeds: int = 1) -> Plan:
    return read_plan("demo-tiny", settings or ["batch.tokens_per_gpu=16,32,48"], seeds=seeds)


@given(PLAIN)
def test_what_a_point_prints_reads_back_to_the_same(value: object) -> None:
    assert yamlfile.parse_yaml(f"value: {flow(value)}", "test").data["value"] == value


def test_values_are_divided_outside_of_brackets_and_read_as_run_reads_them() -> None:
    assert read_axis("a=32k, 1e3, x").values == (32000, 1000, "x")
    assert read_axis("a={b: [1, 2]},'c,d',true").values == ({"b": [1, 2]}, "c,d", True)
    assert read_axis("a=0.5..1").values == Interval(0.5, 1)
    assert read_axis("a=log 1..64").values == Interval(1, 64, log=True)


def test_designs_by_hand() -> None:
    axes = (Axis("a", (1, 2)), Axis("b", ("x", "y")))
    assert list(combine(axes, "cartesian", None, 0)) == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert list(combine(axes, "zipped", None, 0)) == [(1, "x"), (2, "y")]
    assert list(combine((), "cartesian", None, 0)) == [()]
    assert list(combine((*axes, Axis("c", (7,))), "zipped", None, 0)) == [(1, "x", 7), (2, "y", 7)]


@pytest.mark.parametrize("number", [1, 7, 64])
def test_a_latin_hypercube_has_one_point_in_every_stretch_of_every_axis(number: int) -> None:
    shares = spread(3, number, 5, latin=True)
    assert (np.sort(np.floor(shares * number), axis=0) == np.arange(number)[:, None]).all()
    assert (spread(4, number, 5, latin=True)[:, :3] == shares).all()  # another axis moves none
    whole = [value for (value,) in combine((Axis("a", Interval(1, number)),), "latin", number, 5)]
    assert sorted(whole) == list(range(1, number + 1))


def test_a_logarithmic_interval_draws_equal_ratios_equally() -> None:
    drawn = [value for (value,) in combine((Axis("a", Interval(1.0, 100.0, log=True)),), "latin", 100, 0)]
    assert sum(value < 10 for value in drawn) == 50


def test_points_that_fail_for_now_are_tried_again_and_others_are_not(tmp_path: Path) -> None:
    first = sweep(small(), folder=tmp_path / "s", executor=Fixed(LOST, 3))
    assert [one.code for one in first.kept] == [LOST, 3, 0]
    assert first.exit_code == 70
    again = Fixed()
    second = sweep(small(), folder=tmp_path / "s", executor=again)
    assert again.asked == 1 and second.exit_code == 0


def test_seeds_are_points_of_their_own_and_equal_points_are_one(tmp_path: Path) -> None:
    found = sweep(small("batch.tokens_per_gpu=16,16,32", seeds=2), folder=tmp_path / "s", executor=Fixed())
    assert [(one.overrides[0][-2:], one.seed) for one in found.points] == [("16", 0), ("16", 1), ("32", 0), ("32", 1)]


def test_a_point_is_another_once_a_file_that_it_names_has_changed(tmp_path: Path) -> None:
    from moesim.hardware import find_topology

    mine = tmp_path / "mine.yaml"
    mine.write_bytes(find_topology("dgx-h100").read_bytes())
    plan = small(f"cluster.topology={mine}")
    assert sweep(plan, folder=tmp_path / "s", executor=Fixed()).ran == 1
    assert sweep(plan, folder=tmp_path / "s", executor=Fixed()).ran == 0
    mine.write_text(mine.read_text() + "# a change\n")
    assert sweep(plan, folder=tmp_path / "s", executor=Fixed()).ran == 1


def test_a_point_is_another_once_the_code_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep(small(), folder=tmp_path / "s", executor=Fixed()).ran == 3
    monkeypatch.setattr(plans, "sources_digest", lambda: "other")
    assert sweep(small(), folder=tmp_path / "s", executor=Fixed()).ran == 3
    assert sweep(small(), folder=tmp_path / "s", executor=Fixed()).ran == 0


def test_the_digest_of_sources_sees_names_and_contents_but_not_what_only_shows(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        shutil.rmtree(tmp_path / "p", ignore_errors=True)
        for name, text in {"costs/a": "a = 1", "cli/b": "b = 1", **files}.items():
            (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "p" / f"{name}.py").write_text(text)
        return sources_digest.__wrapped__(tmp_path / "p")

    assert digest() == digest() == digest(**{"cli/b": "b = 2"})
    assert len({digest(), digest(**{"costs/a": "a = 2"}), digest(**{"costs/c": ""})}) == 3


def test_one_writes_at_a_time_and_what_a_killed_one_left_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "me")
    with store.writing("x"):
        (tmp_path / "s/points/ab").mkdir(parents=True)
        (tmp_path / "s/points/ab/.abc.json.0123456789abcdef.part").write_text("half")
        with pytest.raises(TryAgain, match="another sweep writes here"), Store(tmp_path / "s", "me").writing("x"):
            pass
    with store.writing("x"):
        assert not list((tmp_path / "s").rglob("*.part"))


def test_a_process_that_dies_takes_its_own_point_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker ends itself on one point: that one is lost after a second try, the others are answered."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from moesim.studies.sweeping import subject\n"
        "def play(self, overrides, seed):\n"
        "    if overrides[0].endswith('32'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return {'metrics': {}, 'breakdown': {}, 'warnings': []}\n"
        "subject.Subject.play = play\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}")
    found = sweep(small(), folder=tmp_path / "s", executor=Processes(1))
    assert [one.code for one in found.kept] == [0, LOST, 0]
    assert f"signal {signal.SIGKILL.value}, 2 times" in found.kept[1].record["reason"]


def test_a_record_holds_no_time_so_that_two_stores_are_equal(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sweep(small(), folder=tmp_path / name, executor=Fixed())
    a, b = ({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
            for name in "ab")  # fmt: skip
    assert a == b
    assert json.loads(a["store.json"])["store"] == 1


def test_this_process_answers_as_others_do(tmp_path: Path) -> None:
    here, there = (sweep(small(), folder=tmp_path / str(jobs), jobs=jobs) for jobs in (0, 1))
    assert [one.record for one in here.kept] == [one.record for one in there.kept]
