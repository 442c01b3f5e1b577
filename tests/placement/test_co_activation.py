"""Experts that are chosen together share a node: planted groups are found, caps and room are kept."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.placement import PlacementProblem, Windows, objectives, solve
from moesim.placement.search.gather_kernel import gather

NODES, SLOTS = np.repeat(np.arange(4), 2), np.full(8, 3)  # 24 slots


def planted(seed: int, groups: int = 4, each: int = 4) -> np.ndarray:
    """uint8[2 layers, 400, 2]: both choices of a token are of one hidden group; the layers have different groups."""
    random = np.random.default_rng(seed)
    hidden = [random.permutation(groups * each).reshape(groups, each) for _ in range(2)]
    pick = [[random.choice(group[t % groups], 2, replace=False) for t in range(400)] for group in hidden]
    return np.array(pick, dtype=np.uint8)


def problem(tokens: np.ndarray, **limits: object) -> PlacementProblem:
    windows = Windows.of_tokens("train", tokens, 16, 100)
    return PlacementProblem(windows, NODES, SLOTS, objectives.find("nodes_touched"), **limits)  # type: ignore[arg-type]


def test_planted_groups_are_found_so_that_each_token_touches_one_node() -> None:
    solution = solve(problem(planted(0)), "co_activation")
    assert solution.objective == 1 and solution.notes == ()


def test_within_a_load_cap_of_ranks() -> None:
    assert solve(problem(planted(1), load_cap=1.15), "co_activation").objective < 1.3  # `solve` checks the cap


def test_on_one_node_it_balances_and_says_so() -> None:
    one = PlacementProblem(Windows.of_tokens("train", planted(2), 16, 100), np.zeros(8, dtype=np.int64), SLOTS)
    solution = solve(one, "co_activation")
    assert solution.objective < 1.2 and "one node" in solution.notes[0]


def test_counts_alone_are_refused() -> None:
    one = PlacementProblem(Windows("train", np.ones((2, 1, 16), dtype=np.int64)), NODES, SLOTS)
    with pytest.raises(BadInput, match="co-activation needs tokens"):
        solve(one, "co_activation")


def test_the_search_without_heat_never_adds_visits_and_keeps_caps_and_room() -> None:
    random = np.random.default_rng(3)
    tokens = np.sort(random.integers(-1, 12, (200, 3)).astype(np.int32), axis=1)
    tokens[:, 1:][tokens[:, 1:] == tokens[:, :-1]] = -1  # an expert once a token, -1: none
    load = np.bincount(tokens[tokens >= 0], minlength=12).astype(np.float64)
    group, room = np.arange(12) % 3, np.array([5, 5, 5])
    cap = np.full(3, np.bincount(group, load).max())
    draws = np.stack([random.integers(0, 12, 3000), random.integers(0, 15, 3000)], axis=1).astype(np.int32)
    before = visits(tokens, group)
    for part in np.split(np.arange(3000), 30):
        gather(tokens, load, group, cap, room, draws[part], np.full(100, 0.5), np.zeros(100))
        after = visits(tokens, group)
        assert after <= before and np.bincount(group, load).max() <= cap[0]
        assert np.bincount(group, minlength=3).max() <= 5
        before = after


def visits(tokens: np.ndarray, group: np.ndarray) -> int:
    return sum(len({int(group[e]) for e in token if e >= 0}) for token in tokens)
