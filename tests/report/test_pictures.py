"""The pictures' data says the same as the run they are drawn from."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from moesim.report.gantt import MAX_RANKS
from moesim.report.pictures import by_node
from moesim.studies import Result


def test_pictures_are_plain_json(drawn: dict[str, Any]) -> None:
    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn


def test_no_byte_and_no_row_is_lost(result: Result, drawn: dict[str, Any]) -> None:
    assert np.sum(drawn["traffic"]["bytes"]) == result.played.sent.sum()
    assert np.sum(drawn["experts"]["rows"]) == result.played.expert_load.sum()
    assert sum(row["bytes"] for row in drawn["memory"]["rows"]) == result.metrics["peak_memory_bytes"].value


def test_the_hottest_link_is_the_metric_s(result: Result) -> None:
    used = [link["utilisation"] for link in result.provenance["congestion"]["hot_spots"]]
    assert used == sorted(used, reverse=True)
    assert used[0] == pytest.approx(result.metrics["hottest_link_utilisation"].value)


def test_the_load_over_time_adds_up_to_each_link_s_bytes(result: Result, drawn: dict[str, Any]) -> None:
    heat, links = drawn["link_heat"], result.provenance["congestion"]["links"]
    for name, row in zip(heat["links"], heat["utilisation"], strict=True):
        assert np.mean(row) == pytest.approx(links["utilisation"][links["link"].index(name)], abs=1e-4)


def test_every_cable_joins_two_places_and_the_hottest_is_drawn(result: Result, drawn: dict[str, Any]) -> None:
    names = {node["name"] for node in drawn["topology"]["nodes"]}
    cables = drawn["topology"]["cables"]
    assert {end for cable in cables for end in cable["ends"]} == names
    assert len(cables) == len({tuple(sorted(ends)) for ends in result.played.cluster.link_ends})
    hottest = max(used for cable in cables for used in cable["used"] if used is not None)
    assert hottest <= result.metrics["hottest_link_utilisation"].value


def test_traffic_by_node_keeps_the_sum() -> None:
    sent = np.arange(36).reshape(6, 6)
    total = by_node(sent, np.array([0, 0, 1, 1, 2, 2], dtype=np.int32))
    assert total.shape == (3, 3)
    assert total.sum() == sent.sum()
    assert total[0, 1] == sent[:2, 2:4].sum()


def test_bars_of_one_row_never_overlap(drawn: dict[str, Any]) -> None:
    gantt, rows = drawn["gantt"], defaultdict(list)
    for row, start, length in zip(gantt["row"], gantt["start_us"], gantt["length_us"], strict=True):
        rows[row].append((start, start + length))
    assert rows
    for bars in rows.values():
        bars.sort()
        assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(bars))


def test_the_window_lies_in_the_step_and_shows_few_ranks(drawn: dict[str, Any]) -> None:
    gantt = drawn["gantt"]
    assert 0 <= gantt["first_us"] < gantt["last_us"] <= gantt["step_us"]
    assert len({row["rank"] for row in gantt["rows"]}) <= MAX_RANKS
    assert len(gantt["layers"]) == 2
