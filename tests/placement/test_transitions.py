"""Moves between layers: the objective, its bounds, the descent and the exact chain, against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import BadInput, DoesNotFit
from moesim.placement import Budget, PlacementProblem, Windows, dispatch, objectives, solve
from moesim.placement.bounds import transitions
from moesim.placement.chain import Chain
from moesim.placement.levels import hops
from moesim.placement.objectives import REGISTRY as OBJECTIVES
from moesim.placement.search.exchange import settle, tournament
from moesim.placement.search.partitions import deals, how_many
from moesim.placement.strategies.affinity_bcd import descend

SMALL = settings(max_examples=25, deadline=None)


def problem(
    seed: int, layers: int, experts: int, nodes: list[int], slots: list[int], top_k: int = 2, **limits: object
) -> PlacementProblem:  # fmt: skip
    """Tokens that stick to their topic, so that some placements are much better than others."""
    random = np.random.default_rng(seed)
    topic, weight = random.integers(0, experts, 60), random.dirichlet(np.full(experts, 1.5), experts)
    tokens = [[random.choice(experts, top_k, replace=False, p=weight[t]) for t in topic] for _ in range(layers)]
    windows = Windows.of_tokens("train", np.array(tokens, dtype=np.uint8), experts, 30)
    node, owned = np.array(nodes, dtype=np.int64), np.array(slots, dtype=np.int64)
    return PlacementProblem(windows, node, owned, **{"objective": objectives.find("transitions"), **limits})  # type: ignore[arg-type]


def score(one: PlacementProblem, rank: object) -> float:
    return float(one.objective.evaluate(one, one.place_ranks(np.asarray(rank)), one.train).mean())


def brute_force(one: PlacementProblem) -> float:
    """The least objective over every placement of every layer that keeps the load cap."""
    ways = [deals(one.slots_of_rank)[fullest(one, layer) <= (one.load_cap or np.inf)] for layer in range(one.layers)]
    return min(score(one, chain) for chain in product(*ways))


def fullest(one: PlacementProblem, layer: int) -> np.ndarray:
    """float[deals]: most load of a rank over the mean."""
    load = one.load[layer]
    held = np.array([np.bincount(deal, load, one.ranks).max() for deal in deals(one.slots_of_rank)])
    return np.asarray(held / load.sum() * one.ranks - 1e-12)


def test_a_token_that_stays_costs_nothing_one_hop_in_the_node_two_between_nodes_three_across_rails() -> None:
    tokens = np.array([[[0], [0], [0], [0]], [[0], [1], [2], [3]]], dtype=np.uint8)
    windows = Windows.of_tokens("train", tokens, 4, 4)
    for objective, hop_sum in (("transitions", 0 + 1 + 2 + 2), ("rail_transitions", 0 + 1 + 2 + 3)):
        one = PlacementProblem(
            windows, np.array([0, 0, 1, 1]), np.ones(4, dtype=np.int64), objective=objectives.find(objective)
        )
        assert score(one, [[0, 1, 2, 3]] * 2) == hop_sum / 4


def test_top_k_moves_are_all_pairs_of_choices() -> None:
    tokens = np.array([[[0, 1]], [[0, 2]]], dtype=np.uint8)
    assert Windows.of_tokens("train", tokens, 3, 1).flow.tolist() == [[[1, 0, 1], [1, 0, 1], [0, 0, 0]]]


def test_counts_alone_know_no_moves() -> None:
    one = PlacementProblem(
        Windows("train", np.ones((1, 2, 2), dtype=np.int64)), np.zeros(2, dtype=np.int64), np.ones(2, dtype=np.int64)
    )
    with pytest.raises(BadInput, match="need tokens.*Try: a trace"):
        solve(one, "affinity_bcd")


def test_under_nearest_dispatch_a_replica_on_the_way_saves_the_hop() -> None:
    tokens = np.array([[[0]] * 4, [[1]] * 4], dtype=np.uint8)
    windows, nodes = Windows.of_tokens("train", tokens, 2, 4), np.zeros(2, dtype=np.int64)
    even = PlacementProblem(windows, nodes, np.array([2, 1]), objective=objectives.find("transitions"))
    near = replace(even, dispatch=dispatch.find("nearest"))
    table = [[0, 1, 1], [1, 0, 1]]
    assert OBJECTIVES["transitions"].evaluate(even, even.place(table), windows).tolist() == [0.5]
    assert OBJECTIVES["transitions"].evaluate(near, near.place(table), windows).tolist() == [0.0]


@SMALL
@given(st.integers(0, 10**6), st.sampled_from([[2, 2], [1, 1, 2], [3, 1], [2, 1, 1]]), st.booleans())
def test_the_exact_chain_is_what_brute_force_finds_and_no_bound_exceeds_it(
    seed: int, slots: list[int], apart: bool
) -> None:
    nodes = [0, 1, 1][: len(slots)] if apart else [0] * len(slots)
    one = problem(seed, 3, 4, nodes, slots)
    optimum = brute_force(one)
    solution = solve(one, "exact_chain_dp")
    assert solution.objective == pytest.approx(optimum) and solution.bound_kind == "dynamic programming"
    assert solution.gap == pytest.approx(0)
    assert transitions.bound(one).value <= optimum + 1e-9


@SMALL
@given(st.integers(0, 10**6))
def test_within_a_load_cap_too(seed: int) -> None:
    free = problem(seed, 3, 4, [0, 0], [2, 2])
    tightest = max(float(fullest(free, layer).min()) for layer in range(3))
    one = problem(seed, 3, 4, [0, 0], [2, 2], load_cap=tightest * 1.02 + 1e-9)
    optimum = brute_force(one)
    assert solve(one, "exact_chain_dp").objective == pytest.approx(optimum)
    assert transitions.bound(one).value <= optimum + 1e-9


def test_a_cap_that_no_deal_keeps_is_said() -> None:
    """Three experts of two thirds of the mean each, and one that is empty: two of the three meet on one rank."""
    tokens = np.array([[[0], [1], [2]]] * 2, dtype=np.uint8)
    one = PlacementProblem(
        Windows.of_tokens("train", tokens, 4, 3),
        np.zeros(2, dtype=np.int64),
        np.array([2, 2]),
        objectives.find("transitions"),
        load_cap=1.2,
    )
    with pytest.raises(DoesNotFit, match="no deal.*layer 0.*load cap 1.2.*Try: load cap 1.334"):
        solve(one, "exact_chain_dp")


def test_names_of_equal_ranks_do_not_change_the_optimum() -> None:
    """Two nodes of two: the names are counted once; a speed of one rank makes them all different."""
    one = problem(3, 4, 8, [0, 0, 1, 1], [2, 2, 2, 2])
    other = problem(3, 4, 8, [0, 0, 1, 1], [2, 2, 2, 2], speed=np.array([1, 1, 1, 1 + 1e-9]))
    assert solve(one, "exact_chain_dp").objective == pytest.approx(solve(other, "exact_chain_dp").objective)


def test_too_many_ways_are_refused_with_a_way_out() -> None:
    with pytest.raises(DoesNotFit, match="ways to deal 16 slots to 4 ranks.*Try: strategy affinity_bcd"):
        solve(problem(0, 2, 16, [0] * 4, [4] * 4), "exact_chain_dp")


def test_descent_is_no_worse_than_balanced_clusters_and_keeps_the_cap() -> None:
    one = problem(1, 6, 16, [0] * 4, [4] * 4, load_cap=1.1)
    first, best = solve(one, "affinity_hungarian"), solve(one, "affinity_bcd")  # `solve` checks the cap
    assert best.bound <= best.objective < first.objective


def test_the_cost_of_a_chain_is_the_objective_with_replicas_too() -> None:
    one = problem(2, 4, 6, [0, 0, 1], [3, 3, 2])
    chain = Chain.of(one)
    rank = descend(chain, one, Budget())
    value = OBJECTIVES["transitions"].evaluate(one, chain.placement(one, rank), one.train).mean()
    assert chain.cost(rank) == pytest.approx(value, rel=1e-6)


@SMALL
@given(st.integers(0, 10**6))
def test_an_exchange_costs_no_more_and_keeps_room_and_caps(seed: int) -> None:
    random, room = np.random.default_rng(seed), np.array([3, 2, 0, 3])
    rank = np.tile(np.repeat(np.arange(4), room), (2, 1))
    cost, load = random.random((2, 8, 4)), random.random((2, 8))
    cap = np.tile(load.sum(axis=1)[:, None] * 0.45, (1, 4))
    before = rank.copy()
    settle(cost, load, rank, cap, room)
    for layer in range(2):
        assert np.bincount(rank[layer], minlength=4).tolist() == room.tolist()
        held = [np.maximum(np.bincount(r[layer], load[layer], 4) - cap[layer], 0).max() for r in (before, rank)]
        assert held[1] <= held[0] + 1e-12
        if held[0] == 0:
            price = [cost[layer, np.arange(8), r[layer]].sum() for r in (before, rank)]
            assert price[1] <= price[0] + 1e-12


def test_everyone_meets_everyone_once() -> None:
    for ranks in (1, 2, 5, 8):
        met = [tuple(sorted(pair)) for pairs in tournament(ranks) for pair in pairs]
        assert len(met) == len(set(met)) == ranks * (ranks - 1) // 2


def test_deals_are_all_multisets_once() -> None:
    table = deals(np.array([2, 1, 1]))
    assert len(np.unique(table, axis=0)) == len(table) == how_many(np.array([2, 1, 1])) == 12


def test_hops_are_symmetric_and_add_up_by_level() -> None:
    table = hops(np.array([0, 0, 1, 1]), rails=True)
    assert (table == table.T).all() and table[0].tolist() == [0, 1, 2, 3]
