"""The page of a sweep: its numbers are the table's, every picture is drawn and has a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from moesim.errors import BadInput
from moesim.report.sweep_page import sweep_page
from moesim.studies.fronts import read_goals
from moesim.studies.sweeping import Point, Sweep, read_plan, sweep
from moesim.studies.sweeping.executor import Answer
from moesim.studies.sweeping.subject import Subject
from tests.report.test_browser import CHROMIUM, opened


class Squares:
    """x: the square of tokens, y: their inverse; the last point fails."""

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        for number, point in enumerate(points, start=1):
            size = float(point.values[0])
            metrics = {"x": {"value": size**2, "unit": "1"}, "y": {"value": 1 / size, "unit": "1"}}
            last = number == len(points)
            found = {"metrics": metrics, "breakdown": {}, "warnings": ["<b>careful</b>"]}
            yield Answer(point, 3 if last else 0, None if last else found, "too large" if last else "")


@pytest.fixture
def found(tmp_path: Path) -> Sweep:
    plan = read_plan("demo-tiny", ["batch.tokens_per_gpu=2,3,4", "overlap.schedule=sequential,two_batch"])
    return sweep(plan, folder=tmp_path / "s", executor=Squares())


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_every_number_is_the_table_s_and_every_picture_has_one(found: Sweep, tmp_path: Path) -> None:
    front = found.front(read_goals("x:max,y:max"))
    shown, text = opened(sweep_page(found, ("x",), front, "moesim sweep scenario.yaml"), tmp_path)
    able = [row for row in found.rows() if row["code"] == 0]
    for number, row in enumerate(able):
        assert json.loads(shown.data["point", f"x {number}"]) == row["x"]
    for end in (">4</text>", ">16</text>", ">sequential</text>"):  # of columns: least, most, words
        assert end in text
    assert len(shown.figures) == 3 and all(shown.figures.values())
    assert text.count("as a table") >= 3
    assert "too large" in text and "<b>careful</b>" not in text.split("</script>")[-1]


def test_too_many_points_for_a_page_are_refused(found: Sweep) -> None:
    from dataclasses import replace

    with pytest.raises(BadInput, match="too many for a page"):
        sweep_page(replace(found, points=found.points * 500), ("x",), None, "")
