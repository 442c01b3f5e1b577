"""Changing what stands: never more moves than allowed, never worse, and where a move gains most."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.layout import Placement
from moesim.placement import PlacementProblem, Windows, count_moves, judge, solve

CLUSTER = load_cluster("dgx-h100", nodes=1)


def problem(loads: list[list[int]], slots: list[int], ranks: int, budget: int | None) -> PlacementProblem:
    """A layer a row; slots hold what stands now."""
    counts, layers = np.array([loads], dtype=np.int64), len(loads)
    owner = np.repeat(np.arange(ranks, dtype=np.int32), len(slots) // ranks)
    now = Placement(
        np.tile(np.array(slots, np.int32), (layers, 1)), np.tile(owner, (layers, 1)), counts.shape[2], ranks
    )
    return PlacementProblem.on(
        CLUSTER, Windows("train", counts), ranks=ranks, slots=len(slots) // ranks, previous=now, move_budget=budget
    )


def test_one_exchange_of_two_hot_neighbours_is_found() -> None:
    found = solve(problem([[8, 8, 1, 1]], [0, 1, 2, 3], 2, 2), "incremental")
    assert found.moves == 2 and found.objective == 1


def test_a_slot_with_a_spare_replica_takes_the_hot_expert_for_one_move() -> None:
    """Expert 1 has two replicas that nobody needs; one move halves expert 0."""
    found = solve(problem([[8, 1, 1]], [0, 1, 1, 2], 2, 1), "incremental")
    assert found.moves == 1 and found.placement.replicas.tolist() == [[2, 1, 1]]


def test_moves_go_to_the_layer_where_they_gain_most() -> None:
    found = solve(problem([[5, 4, 4, 4], [9, 9, 1, 1]], [0, 1, 2, 3], 2, 2), "incremental")
    assert sorted(found.placement.slot_expert[0].tolist()) == [0, 1, 2, 3]
    assert found.moves == 2 and found.placement.slot_expert[0].tolist() == [0, 1, 2, 3]


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 100), min_size=6, max_size=6), min_size=1, max_size=3), st.integers(0, 6))
def test_within_the_budget_and_never_worse(loads: list[list[int]], budget: int) -> None:
    one = problem(loads, [0, 1, 2, 3, 4, 5, 0, 1], 4, budget)
    assert one.previous is not None
    found = solve(one, "incremental")
    assert count_moves(one.previous, found.placement) <= budget
    assert found.objective <= judge(one, one.previous, "now").objective * (1 + 1e-9)


def test_without_a_previous_placement_there_is_nothing_to_change() -> None:
    with pytest.raises(BadInput, match="needs a previous placement"):
        solve(PlacementProblem.on(CLUSTER, Windows("train", np.ones((1, 1, 8), np.int64))), "incremental")
