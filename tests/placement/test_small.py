"""Small models to optimality, bounds of many ranks, budgets, habits."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import DoesNotFit
from moesim.placement import Budget, PlacementProblem, Progress, Windows, solve
from moesim.placement.bounds import balance, kernel
from moesim.placement.loads import imbalance

TOY = json.loads((Path(__file__).parents[1] / "data/placement/eplb_cases.json").read_text())["toy"]


def problem(windows: list[list[int]], ranks: int, slots: int, **limits: object) -> PlacementProblem:
    counts = np.array(windows, dtype=np.int64)[:, None]
    return PlacementProblem(Windows("t", counts), np.zeros(ranks, dtype=np.int64), np.full(ranks, slots), **limits)  # type: ignore[arg-type]


def brute_force(one: PlacementProblem) -> float:
    rows = [row for row in product(range(one.experts), repeat=one.slots) if len(set(row)) == one.experts]
    many = Windows("many", np.repeat(one.train.counts, len(rows), axis=1))
    return float(imbalance(one, one.with_train(many).place(rows), many).mean(axis=0).min())


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(0, 100), min_size=4, max_size=4), min_size=1, max_size=3), st.integers(2, 3))
def test_small_models_are_solved_to_optimality(windows: list[list[int]], ranks: int) -> None:
    one = problem(windows, ranks, 2)
    if one.slots < one.experts:
        one = problem(windows, ranks, 3)
    found = solve(one, "exhaustive")
    live = [row for row in windows if any(row)]
    if live:
        least = brute_force(problem(live, ranks, int(one.slots_of_rank[0])))
        mean = (least * len(live) + len(windows) - len(live)) / len(windows)
        assert found.objective == pytest.approx(mean)


def test_flashlb_s_toy_is_solved_and_large_models_are_refused() -> None:
    one, mean = problem([TOY["weight"]], TOY["num_gpus"], TOY["slots_per_gpu"]), sum(TOY["weight"]) / TOY["num_gpus"]
    assert solve(one, "exhaustive").objective * mean == pytest.approx(196.6667, abs=1e-3)
    with pytest.raises(DoesNotFit, match="strategy multiwindow"):
        solve(problem([list(range(1, 33))], 8, 5), "exhaustive")


def test_an_expert_may_have_more_replicas_than_there_are_ranks() -> None:
    """Thirds of 90 on two ranks, two beside 10 and one beside 37 + 3: both have 70. With halves 73.5 is the least."""
    one = problem([[90, 10, 37, 3]], 2, 3)
    assert solve(one, "exhaustive").objective == pytest.approx(1.0) and balance.bounds(one).max() == pytest.approx(1.0)
    tiny = problem([[10, 3, 2, 1]], 2, 5)
    assert balance.bounds(tiny).max() <= solve(tiny, "exhaustive").objective <= solve(tiny, "eplb").objective


def test_a_bound_of_two_slots_a_rank_meets_the_fold() -> None:
    """Without replicas the best pairs are heaviest with lightest: 9 + 1, 8 + 2, 5 + 4 -> 10. No pairing is below."""
    load = np.array([9.0, 8, 5, 4, 2, 1])
    assert kernel.beyond(load, 9.5, 6, 3) and not kernel.beyond(load, 10.0, 6, 3)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 1000), min_size=3, max_size=4), st.integers(1, 2))
def test_what_is_ruled_out_cannot_be_placed(loads: list[int], more: int) -> None:
    ranks = 2 if (len(loads) + more) % 2 == 0 else 1
    one = problem([loads], ranks, (len(loads) + more) // ranks)
    best = brute_force(one) * sum(loads) / ranks
    heavy = np.sort(np.array(loads, dtype=np.float64))[::-1]
    assert kernel.least_time(heavy, 0.0, 2 * best, one.slots, ranks, 30) <= best * (1 + 1e-6)


def test_bounds_count_against_the_time_limit_and_say_how_far_they_are() -> None:
    told: list[Progress] = []
    random = np.random.default_rng(0)
    counts = random.integers(1, 1000, (2, 3, 32))
    one = PlacementProblem(Windows("t", counts), np.arange(16) // 8, np.full(16, 3))
    whole = balance.bounds(one, Budget(None, progress=told.append))
    assert told[-1].said == "6 of 6 windows and layers"
    late = Budget(1e-9)
    assert (balance.bounds(one, late) <= whole + 1e-12).all() and late.cut


def test_eplb_is_never_cut_short() -> None:
    one = problem([[9, 5, 4, 2, 2, 1, 1, 1]], 4, 3)
    assert solve(one, "eplb", 1e-9).notes == ()
    assert "time limit" in solve(one, "exhaustive", 1e-9).notes[-1]


def test_the_hottest_stand_on_every_rank() -> None:
    found = solve(problem([[9, 5, 4, 2, 2, 1, 1, 1]], 4, 5), "top_everywhere")
    assert found.placement.replicas[0, :4].tolist() == [4, 4, 4, 4]
    with pytest.raises(DoesNotFit, match="on all ranks but one"):
        solve(problem([[9, 5, 4, 2, 2, 1, 1, 1]], 4, 2), "top_everywhere")
