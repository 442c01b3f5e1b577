"""The page of a placement run: its numbers are the document's, and every picture is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import moesim as ms
from moesim.placement.formats import write_placement
from moesim.placement.loads import rank_loads
from moesim.report.place_page import place_page
from moesim.report.place_pictures import place_pictures
from moesim.studies import Outcome
from tests.report.test_browser import CHROMIUM, opened


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """From round robin to something better on two nodes."""
    call = ("tiny-moe", "dgx-h100", 16)
    stands = ms.place(*call, strategies=("round_robin",))
    path = tmp_path_factory.mktemp("p") / "previous.npy"
    write_placement(stands.solutions[1].placement, path, "omniinfer", stands.frame)
    return ms.place(*call, strategies=("greedy", "affinity_bcd"), previous=path)


def test_pictures_say_what_the_outcome_says(found: Outcome) -> None:
    drawn = place_pictures(found)
    assert found.best.moves
    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
    assert np.array_equal(drawn["replicas"], found.placement.replicas)
    assert np.sum(drawn["moves"]) == found.best.moves == len(found.migration.moves)  # type: ignore[union-attr]
    loads = rank_loads(found.problem, found.placement, found.split.deciding)
    assert np.argmax(drawn["load"]["after"], axis=1).tolist() == loads.mean(axis=0).argmax(axis=1).tolist()
    assert np.mean(drawn["load"]["after"]) == pytest.approx(1, abs=1e-4)
    sent = found.problem.clock.lowered(found.placement, found.split.deciding).sent  # type: ignore[union-attr]
    assert np.array_equal(drawn["traffic"]["after"], sent)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_the_page_shows_the_document(found: Outcome, tmp_path: Path) -> None:
    document = found.to_json()
    shown, text = opened(place_page(document, place_pictures(found)), tmp_path)
    for row in document["strategies"]:
        name = row["strategy"]
        assert json.loads(shown.data[name, "objective"]) == row["objective"]
        assert json.loads(shown.data[name, "step_time_s, held out"]) == row["step_time_s"]["held out"]
        assert {key: json.loads(shown.data[name, key]) for key in row["judged"]} == row["judged"]
    assert document["provenance"]["verdict"] in text
    assert len(shown.figures) == 8, shown.figures  # bars, load twice, traffic twice, replicas, moves, links
