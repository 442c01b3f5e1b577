"""The congestion report says of both players what it can, and names those who cause a hot link."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.studies import Result, run
from moesim.studies.congestion import UNKNOWN


@pytest.fixture(scope="module")
def both() -> tuple[Result, Result]:
    asked = (["network.level=port_load"], ["network.level=fluid"])
    return tuple(run("demo-tiny", overrides=level) for level in asked)  # type: ignore[return-value]


def reports(both: tuple[Result, Result]) -> tuple[dict[str, Any], dict[str, Any]]:
    return both[0].provenance["congestion"], both[1].provenance["congestion"]


def test_both_players_fill_the_same_keys(both: tuple[Result, Result]) -> None:
    loads, fluid = reports(both)
    assert set(loads) == set(fluid)
    assert all(set(one) == set(other) for one, other in zip(loads["hot_spots"], fluid["hot_spots"], strict=True))
    assert loads["saturation"] == UNKNOWN and loads["links"]["saturated_s"] is None
    assert fluid["saturation"] != UNKNOWN


def test_a_link_is_full_for_no_longer_than_its_bytes_take(both: tuple[Result, Result]) -> None:
    _, fluid = reports(both)
    columns = {name: np.array(column) for name, column in fluid["links"].items()}
    assert columns["saturated_s"].max() > 0
    assert np.all(columns["saturated_s"] * columns["capacity"] <= columns["bytes"] * (1 + 1e-6))
    assert np.all(columns["saturated_s"] <= columns["busy_s"] * (1 + 1e-6))


def test_the_ranks_behind_a_hot_port_are_its_own(both: tuple[Result, Result]) -> None:
    for spot in reports(both)[1]["hot_spots"]:
        gpu, _, port = spot["link"].partition("/")
        causes = spot["senders"] if "up" in port else spot["receivers"]
        assert [(one["rank"], one["share"]) for one in causes] == [(int(gpu.removeprefix("gpu")), 1.0)]


def test_everybody_hears_all_others_in_an_all_to_all(both: tuple[Result, Result]) -> None:
    assert reports(both)[0]["incast_degree"] == [7] * 8


def test_the_named_experts_are_on_that_rank_and_the_busiest(both: tuple[Result, Result]) -> None:
    load = both[1].played.expert_load
    for spot in reports(both)[1]["hot_spots"]:
        for one in spot["experts"]:
            assert one["expert"] // (load.shape[1] // 8) == one["rank"]
        rank = spot["experts"][0]["rank"]
        own = load[:, rank * load.shape[1] // 8 : (rank + 1) * load.shape[1] // 8]
        assert spot["experts"][0]["rows"] == own.max()
