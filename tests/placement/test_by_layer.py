"""Layers that differ in slots: empty cells carry nothing, and slots go where they gain most."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.layout import EMPTY, Placement
from moesim.placement import Budget, PlacementProblem, Windows, count_moves, plan, solve
from moesim.placement.by_layer import allotted, knapsack
from moesim.placement.dispatch import REGISTRY
from moesim.placement.loads import rank_loads

TABLE = np.array([[0, 1, 2, 0], [0, 1, 2, EMPTY]], dtype=np.int32)
RANKS = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], dtype=np.int32)


def test_a_cell_that_is_no_slot_holds_nothing() -> None:
    placement = Placement(TABLE, RANKS, 3, 2)
    assert placement.owned.tolist() == [[2, 2], [2, 1]]
    assert placement.replicas.tolist() == [[2, 1, 1], [1, 1, 1]]
    assert placement.expert_slots.tolist() == [[[0, 3], [1, -1], [2, -1]], [[0, -1], [1, -1], [2, -1]]]
    assert placement.rank_slots.tolist() == [[[0, 1], [2, 3]], [[0, 1], [2, -1]]]
    assert placement.held[1].tolist() == [[True, False], [True, False], [False, True]]
    assert placement.of_layers(np.array([1])).slot_expert.tolist() == [[0, 1, 2]]
    assert count_moves(placement, placement) == 0


@pytest.mark.parametrize("rule", list(REGISTRY))
def test_no_rule_sends_a_token_to_an_empty_cell(rule: str) -> None:
    """Expert 0 has 8 choices; layer 0 serves it on both ranks, layer 1 on rank 0 alone."""
    windows = Windows("w", np.array([[[8, 2, 4], [8, 2, 4]]]))
    rows = np.array([[2, 2], [2, 1]])
    problem = PlacementProblem(
        windows, np.zeros(2, dtype=np.int64), rows.max(axis=0), dispatch=REGISTRY[rule], layer_slots=rows
    )
    loads = rank_loads(problem, Placement(TABLE, RANKS, 3, 2), windows)[0]
    assert loads.sum(axis=1).tolist() == [14, 14]
    assert loads[1].tolist() == [10, 4]


def test_the_knapsack_is_exact() -> None:
    value = np.random.default_rng(0).random((4, 4))
    found = knapsack(value, 5)
    tried = [levels for levels in product(range(4), repeat=4) if sum(levels) <= 5]
    assert found.sum() <= 5
    best = min(sum(value[level, layer] for layer, level in enumerate(levels)) for levels in tried)
    assert sum(value[level, layer] for layer, level in enumerate(found)) == pytest.approx(best)


def test_the_hot_layer_gets_the_slots_and_no_rank_holds_more_in_all() -> None:
    """Layer 0 is balanced without replicas. In layer 1 an expert has 90 of 120 on 4 GPUs: with 2 slots a GPU it takes
    32.5 of 30 at best (90 / 4 + 10), with 3 exactly 30 (22.5 + 5 + 2.5).
    """
    counts = np.array([[[10, 10, 10, 10], [90, 10, 10, 10]]])
    even = PlacementProblem(Windows("w", counts), np.zeros(4, dtype=np.int64), np.array([2, 2, 2, 2]))
    uneven = allotted(even, 4, Budget())
    assert uneven.layer_slots[:, 0].tolist() == [1, 3]
    assert uneven.owned.sum() == even.owned.sum()
    one, other = solve(even, "multiwindow"), solve(uneven, "multiwindow")
    assert one.objective == pytest.approx((1 + 32.5 / 30) / 2)
    assert 1.0 <= other.objective < one.objective and other.bound <= other.objective
    assert other.placement.owned.tolist() == uneven.layer_slots.tolist()


def test_who_plans_layers_together_is_refused() -> None:
    rows = np.array([[2, 2], [3, 3]])
    problem = PlacementProblem(
        Windows("w", np.ones((1, 2, 4), dtype=np.int64)),
        np.zeros(2, dtype=np.int64),
        np.array([3, 3]),
        layer_slots=rows,
    )
    with pytest.raises(BadInput, match="plans layers together"):
        plan(problem, "affinity_bcd")
