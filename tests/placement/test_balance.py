"""Balance strategies against brute force, goldens and bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.placement import PlacementProblem, Windows, dispatch, rebalance_experts, solve
from moesim.placement.bounds import balance
from moesim.placement.loads import imbalance
from moesim.placement.strategies import REGISTRY
from moesim.routing.shape import NO_EXPERT

GOLDEN = json.loads((Path(__file__).parents[1] / "data/placement/eplb_cases.json").read_text())
CLUSTER = load_cluster("dgx-h100", nodes=1)
BALANCE = ("lpt", "flash", "multiwindow", "alias_weighted", "eplb")
LOADS = st.lists(st.integers(0, 1000), min_size=4, max_size=8)


def problem(loads: list[list[int]], **limits: Any) -> PlacementProblem:
    """A window a row, one layer."""
    return PlacementProblem.on(CLUSTER, Windows("train", np.array(loads, dtype=np.int64)[:, None]), **limits)


def brute_force(one: PlacementProblem) -> float:
    """Least expected max/mean over every way to fill the slots, each of them a layer of one large problem."""
    rows = [row for row in product(range(one.experts), repeat=one.slots) if len(set(row)) == one.experts]
    many = replace(one.train, counts=np.repeat(one.train.counts, len(rows), axis=1))
    placement = one.with_train(many).place(rows)
    return float(imbalance(one, placement, many).mean(axis=0).min())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_eplb_is_deepseeks_to_the_bit(case: dict[str, Any]) -> None:
    sizes = [case[key] for key in ("num_replicas", "num_groups", "num_nodes", "num_gpus")]
    phy2log, log2phy, logcnt = rebalance_experts(np.array(case["weight"]), *sizes)
    assert phy2log.tolist() == case["phy2log"] and logcnt.tolist() == case["logcnt"]
    layer, expert, _ = np.nonzero(log2phy >= 0)
    assert (phy2log[layer, log2phy[log2phy >= 0]] == expert).all()
    assert ((log2phy >= 0).sum(axis=2) == logcnt).all()


def test_eplb_refuses_sizes_that_do_not_divide() -> None:
    with pytest.raises(BadInput, match="replicas over GPUs to divide: 9 over 4. Try: 12"):
        rebalance_experts(np.ones((1, 8)), 9, 1, 1, 4)
    with pytest.raises(BadInput, match="0 GPUs. Try: 1 or more"):
        rebalance_experts(np.ones((1, 8)), 8, 1, 1, 0)
    with pytest.raises(BadInput, match="negative or not a number"):
        rebalance_experts(np.full((1, 8), np.nan), 8, 1, 1, 4)


def test_the_toy_of_flashlb_is_solved_and_proved() -> None:
    toy = GOLDEN["toy"]
    one = problem([toy["weight"]], slots=toy["slots_per_gpu"])
    best, mean = toy["even_split_optimum"], sum(toy["weight"]) / toy["num_gpus"]
    found = solve(one, "lpt")
    assert found.objective * mean == pytest.approx(best) and found.bound * mean == pytest.approx(best)
    assert solve(one, "eplb").objective * mean == pytest.approx(toy["eplb_max_load"])


@settings(max_examples=30)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=4), st.integers(1, 3), st.integers(0, 2))
def test_no_strategy_and_no_bound_beats_brute_force(loads: list[int], ranks: int, redundant: int) -> None:
    one = problem([loads], ranks=ranks, redundant=min(redundant, 5 - len(loads)))
    best, found = brute_force(one), solve(one, "lpt").objective
    assert balance.bounds(one)[0, 0] <= best * (1 + 1e-9) and best <= found * (1 + 1e-9)


@pytest.mark.parametrize(("loads", "ranks", "redundant"), [([8, 4, 2], 2, 1), ([8, 8, 1, 1], 2, 0)])
def test_bound_and_exchanges_meet_where_the_optimum_is_known(loads: list[int], ranks: int, redundant: int) -> None:
    one = problem([loads], ranks=ranks, redundant=redundant)
    assert solve(one, "lpt").objective == pytest.approx(brute_force(one)) == solve(one, "lpt").bound


@settings(max_examples=20)
@given(st.lists(LOADS.map(lambda row: (row * 2)[:8]), min_size=1, max_size=4), st.integers(0, 4))
def test_every_strategy_keeps_the_laws_of_load(windows: list[list[int]], redundant: int) -> None:
    """Peak >= mean, >= the hottest expert over its replicas, >= the bound; every expert somewhere, slots as given."""
    one = problem(windows, ranks=4, slots=2 + redundant // 4)
    for name in BALANCE:
        found = solve(one, name)
        assert found.objective >= max(1.0, found.bound) * (1 - 1e-9)
        replicas = found.placement.replicas[0]
        hottest = np.array(windows) / np.maximum(np.array(windows).sum(axis=1, keepdims=True) / 4, 1e-300) / replicas
        assert found.objective >= hottest.max(axis=1).mean() * (1 - 1e-9)
        assert np.bincount(found.placement.slot_rank[0], minlength=4).tolist() == one.slots_of_rank.tolist()


@settings(max_examples=20)
@given(st.permutations(range(8)), st.permutations(range(4)))
def test_renaming_experts_and_ranks_changes_no_value(experts: list[int], ranks: list[int]) -> None:
    windows = np.array([[40, 31, 22, 17, 9, 6, 3, 1], [1, 2, 40, 3, 30, 4, 5, 6]])
    one = problem(windows.tolist(), ranks=4)
    table = solve(one, "multiwindow").placement.slot_expert[0].reshape(4, 2)
    renamed = problem(windows[:, np.argsort(experts)].tolist(), ranks=4)
    moved = np.array(experts)[table][ranks].reshape(1, -1)
    before = imbalance(one, one.place([table.ravel()]), one.train)
    assert np.allclose(before, imbalance(renamed, renamed.place(moved), renamed.train))


def test_weighted_dispatch_of_alias_placements_is_even_everywhere() -> None:
    random = np.random.default_rng(0)
    for slots in (2, 3, 5):
        loads = random.lognormal(0, 1.5, 8 * (slots - 1) - 1) * 1000
        one = problem([loads.astype(int).tolist()], slots=slots, dispatch=dispatch.find("weighted"))
        assert solve(one, "alias_weighted").objective == pytest.approx(1, abs=1e-9)


def test_alias_says_where_it_cannot_be_exact() -> None:
    assert "judged with even shares" in solve(problem([[5, 3, 2, 1]], ranks=2, redundant=2), "alias_weighted").notes[0]
    assert "packing of lpt" in solve(problem([[5, 3, 2, 1]], ranks=2, redundant=1), "alias_weighted").notes[-1]


def test_experts_that_peak_together_are_kept_apart() -> None:
    """On the mean all placements are equal; only the windows tell that 0 and 1 peak together."""
    one = problem([[9, 9, 1, 1], [1, 1, 9, 9]], ranks=2)
    for name in ("flash", "multiwindow"):
        assert solve(one, name).objective == 1
    together = one.place([[0, 1, 2, 3]])
    assert imbalance(one, together, one.train).mean() == pytest.approx(1.8)


def test_a_load_cap_holds_back_the_exchanges_of_multiwindow() -> None:
    windows = [[100, 60, 50, 30], [1, 0, 0, 1]]  # the small window wants 0 and 3 apart, the total wants them together
    free, capped = problem(windows, ranks=2), problem(windows, ranks=2, load_cap=1.1)
    total = imbalance(capped, solve(capped, "multiwindow").placement, capped.train.merged())
    assert total[0, 0] <= 1.1 and solve(free, "multiwindow").objective < solve(capped, "multiwindow").objective


def test_a_faster_rank_gets_more_and_uneven_slots_are_kept() -> None:
    one = problem([[8, 4, 3, 3]], ranks=2, slots=[3, 1], speed=[1.25, 1])
    assert solve(one, "lpt").objective == pytest.approx(1)
    with pytest.raises(BadInput, match="equally many slots"):
        solve(one, "eplb")


def test_tokens_give_more_windows_than_were_recorded() -> None:
    """Two texts in one window: the blocks tell that the experts of each peak together."""
    tokens = np.array([[[0, 1]] * 64 + [[2, 3]] * 64], dtype=np.uint16)
    train = Windows.of_tokens("train", tokens, 4, 128)
    one = PlacementProblem.on(CLUSTER, train, ranks=2)
    held = solve(one, "multiwindow").placement.slot_expert[0].reshape(2, 2)
    assert sorted(sorted(pair.tolist()) for pair in held) not in ([[0, 1], [2, 3]],)


def test_a_choice_that_no_expert_took_counts_nowhere() -> None:
    tokens = np.array([[[0, NO_EXPERT], [1, 0]]], dtype=np.uint16)
    assert Windows.of_tokens("train", tokens, 2, 2).counts.tolist() == [[[2, 1]]]


def test_every_strategy_has_a_summary_and_answers_the_same_for_the_same_seed() -> None:
    one = problem([[9, 5, 4, 2, 2, 1, 1, 1]], ranks=4)
    for name, strategy in REGISTRY.items():
        assert strategy.summary and strategy.name == name
        if name in (*BALANCE, "random"):
            first, second = (solve(one, name, seed=3).placement.slot_expert for _ in range(2))
            assert np.array_equal(first, second)
