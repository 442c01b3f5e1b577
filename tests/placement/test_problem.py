"""The placement problem: windows, limits that contradict each other, and what a rank computes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from moesim.errors import BadInput, DoesNotFit
from moesim.hardware import load_cluster
from moesim.layout import Placement
from moesim.placement import Memory, PlacementProblem, Windows, count_moves, dispatch, objectives, solve
from moesim.placement.loads import imbalance, rank_loads
from moesim.placement.objectives import REGISTRY as OBJECTIVES

CLUSTER = load_cluster("dgx-h100", nodes=2)
TOKENS = np.array([[[0, 1], [0, 2], [0, 3], [1, 2]]], dtype=np.uint16)  # one layer, four tokens, top 2 of 4


def problem(counts: object, **limits: object) -> PlacementProblem:
    table = np.asarray(counts, dtype=np.int64)
    return PlacementProblem.on(CLUSTER, Windows("train", table.reshape(-1, 1, table.shape[-1])), **limits)  # type: ignore[arg-type]


def test_windows_of_tokens_count_what_stands_in_them_and_keep_the_view() -> None:
    windows = Windows.of_tokens("train", TOKENS, 4, 2)
    assert windows.counts[:, 0].tolist() == [[2, 1, 1, 0], [1, 1, 1, 1]]
    assert windows.tokens is TOKENS and windows.load.tolist() == [[3, 2, 2, 1]]


def test_the_last_windows_are_held_out() -> None:
    train, later = Windows.of_tokens("train", TOKENS, 4, 1).hold_out(0.5)
    assert train.num_windows == later.num_windows == 2
    assert later.tokens is not None and later.tokens[0].tolist() == [[0, 3], [1, 2]]
    assert later.counts.sum(axis=0).tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize(("slots", "experts"), [([2, 2, 1], 3), ([1, 1, 1], 3), ([3, 2], 2), ([2, 2, 2], 4)])
def test_no_expert_can_stand_on_more_ranks_than_the_others_leave_slots(slots: list[int], experts: int) -> None:
    """Of all tables with every expert, the one that has expert 0 on most ranks."""
    one = PlacementProblem(
        Windows("train", np.ones((1, 1, experts), dtype=np.int64)), np.zeros(len(slots), np.int64), np.array(slots)
    )
    tables = [table for table in product(range(experts), repeat=sum(slots)) if len(set(table)) == experts]
    assert one.most_replicas == max(len(set(one.slot_rank[np.array(table) == 0])) for table in tables)


def test_even_shares_split_an_expert_over_its_replicas() -> None:
    one = problem([[8, 4, 2]], ranks=2, redundant=1)
    assert rank_loads(one, one.place([[0, 1, 0, 2]]), one.train).tolist() == [[[8, 6]]]
    assert imbalance(one, one.place([[0, 1, 0, 2]]), one.train)[0, 0] == 8 / 7


def test_weighted_and_per_batch_shares_reach_the_mean_where_even_ones_do_not() -> None:
    for rule in ("weighted", "lplb"):
        one = problem([[8, 4, 2]], ranks=2, redundant=1, dispatch=dispatch.find(rule))
        assert imbalance(one, one.place([[0, 1, 0, 2]]), one.train)[0, 0] == pytest.approx(1)


def test_nearest_takes_the_own_rank_then_the_own_node() -> None:
    """Expert 0 on rank 0 (node 0) and rank 8 (node 1): 8 ranks of each node go to their node's replica."""
    one = problem(np.arange(1, 16)[None] * 16, ranks=16, redundant=1, dispatch=dispatch.find("nearest"))
    loads = rank_loads(one, one.place([[*range(8), 0, *range(8, 15)]]), one.train)[0, 0]
    assert loads[0] == loads[8] == pytest.approx(8) and loads[1] == pytest.approx(32)


def test_nodes_touched_counts_distinct_nodes_of_a_token() -> None:
    windows = Windows.of_tokens("train", TOKENS, 4, 4)
    one = PlacementProblem.on(CLUSTER, windows, slots=[1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    assert OBJECTIVES["nodes_touched"].evaluate(one, one.place([[0, 1, 2, 3]]), windows).tolist() == [7 / 4]


def test_counts_whose_sum_would_wrap_are_refused() -> None:
    with pytest.raises(BadInput, match="a count of 1.15e\\+18 is more than sums can hold"):
        Windows("w", np.full((3, 8, 32), 2**60))


def test_a_token_that_finds_both_experts_at_home_touches_one_node() -> None:
    """Three nodes of one rank, expert 0 on nodes 0 and 1, expert 1 on nodes 1 and 2; every token takes both. Under
    SGLang's rule a token of node 1 stays there; those of nodes 0 and 2 have one at home and go out for the other, to
    whichever node (even) or to node 1 in half of the cases: 2 nodes each. Mean 5 / 3."""
    windows = Windows.of_tokens("train", np.tile(np.array([[0, 1]], dtype=np.uint16), (1, 3000, 1)), 3, 3000)
    one = PlacementProblem(windows, np.arange(3), np.array([1, 2, 2]), dispatch=dispatch.find("sglang"))
    value = OBJECTIVES["nodes_touched"].evaluate(one, one.place([[0, 0, 1, 1, 2]]), windows)
    assert value[0] == pytest.approx(5 / 3, abs=0.02)


def test_a_slower_rank_should_hold_less() -> None:
    one = problem([[2, 1]], ranks=2, speed=[2, 1])
    assert imbalance(one, one.place([[0, 1]]), one.train)[0, 0] == 1
    assert imbalance(one, one.place([[1, 0]]), one.train)[0, 0] == 2


def test_moves_count_experts_that_a_rank_has_to_fetch() -> None:
    one = problem([[1, 1, 1, 1]], ranks=2)
    assert count_moves(one.place([[0, 1, 2, 3]]), one.place([[1, 0, 3, 2]])) == 0
    assert count_moves(one.place([[0, 1, 2, 3]]), one.place([[0, 2, 1, 3]])) == 2


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"ranks": 2, "slots": 1}, "4 experts on 2 slots.*2 slots too few.*Try: 2 slots a rank"),
        ({"ranks": 2, "memory": Memory(100, 100)}, "2 slots x 1 layers need.*Try: 4 ranks"),
        ({"ranks": 2, "redundant": 2, "memory": Memory(100, 250)}, "3 slots.*Try: at most 2 slots a rank"),
        ({"ranks": 2, "load_cap": 1.2}, "load cap 1.2 with 0 redundant.*1.400.*Try: load cap 1.4, or 1 redundant"),
    ],
)
def test_limits_that_contradict_each_other_are_named(limits: dict[str, object], message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        solve(problem([[7, 1, 1, 1]], **limits), "lpt")


def test_a_move_budget_below_what_lost_slots_need_is_refused() -> None:
    held = Placement.contiguous(1, 4, 2)
    with pytest.raises(DoesNotFit, match="move budget 0.*1 experts lose"):
        solve(problem([[1, 1, 1, 1]], ranks=2, slots=[3, 1], previous=held, move_budget=0), "lpt")


def test_shapes_that_do_not_match_are_bad_input() -> None:
    with pytest.raises(BadInput, match="2 speeds for 4 ranks"):
        problem([[1, 1, 1, 1]], ranks=4, speed=[1, 2])
    with pytest.raises(BadInput, match="slots .2. for 4 ranks"):
        problem([[1, 1, 1, 1]], ranks=4, slots=[1, 2])
    with pytest.raises(BadInput, match="previous placement has 2 layers"):
        problem([[1, 1, 1, 1]], ranks=2, previous=Placement.contiguous(2, 4, 2))
    with pytest.raises(BadInput, match="did you mean 'makespan'"):
        objectives.find("makespam")


def test_an_answer_above_the_load_cap_is_refused_with_what_it_reaches() -> None:
    one = problem([[4, 4, 1, 1]], ranks=2, load_cap=1.1)
    with pytest.raises(DoesNotFit, match="contiguous reaches 1.600, above load cap 1.1"):
        solve(one, "contiguous")
    assert solve(one, "round_robin").objective == 1


def test_a_solution_says_its_bound_and_its_value_on_windows_it_never_saw() -> None:
    later = Windows("test", np.array([[[1, 1, 1, 9]]]))
    found = solve(problem([[4, 4, 1, 1]], ranks=2), "contiguous", heldout=[later])
    assert found.objective == pytest.approx(1.6) and found.bound == 1 and found.gap == pytest.approx(0.6)
    assert found.heldout == {"test": pytest.approx(10 / 6)}
