"""Dispatch of engines over replicas: shares by hand and by an obvious reference, and plans searched under it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.placement import PlacementProblem, Windows, dispatch, judge, plan
from moesim.placement.dispatch.ways import FIRST, MODULO, NEAREST, slot_shares
from moesim.placement.search.replication import replicate

Ints = npt.NDArray[np.int64]


def reference(table: Ints, owner: Ints, node: Ints, way: int) -> npt.NDArray[np.float64]:
    """Every rank sends one token to every expert; choices among equals are fractions."""
    share = np.zeros(len(table))
    for rank in range(len(node)):
        for expert in set(table.tolist()):
            slots = [s for s in range(len(table)) if table[s] == expert]
            own = [s for s in slots if owner[s] == rank]
            near = [s for s in slots if node[owner[s]] == node[rank]]
            if way == MODULO:
                chosen = [slots[rank % len(slots)]]
            elif way == FIRST:
                chosen = own[:1] or near[:1] or slots
            else:
                chosen = own or near or slots
            for slot in chosen:
                share[slot] += 1 / len(chosen) / len(node)
    return share


@given(st.lists(st.integers(0, 3), min_size=12, max_size=12), st.sampled_from([NEAREST, FIRST, MODULO]))
def test_shares_are_those_of_an_obvious_count(cells: list[int], way: int) -> None:
    table, owner = np.array(cells, dtype=np.int64), np.arange(12) // 2
    node = np.arange(6) // 3
    assert np.allclose(slot_shares(table, owner, node, 4, way), reference(table, owner, node, way))


def test_sglang_s_first_replica_in_a_node_gets_all_that_have_none() -> None:
    """Two nodes of four; two replicas in the first: 3 of 4 ranks use the first, the second only itself, the other node
    both alike: (3 + 2) / 8 and (1 + 2) / 8. In different nodes they share evenly."""
    node, owner = np.arange(8) // 4, np.arange(8)
    near = slot_shares(np.array([0, 0, 1, 2, 3, 4, 5, 6]), owner, node, 7, FIRST)
    apart = slot_shares(np.array([0, 1, 2, 3, 0, 4, 5, 6]), owner, node, 7, FIRST)
    assert near[:2].tolist() == [5 / 8, 3 / 8] and apart[[0, 4]].tolist() == [0.5, 0.5]


def test_vllm_ascend_gives_replica_i_the_ranks_i_modulo_n() -> None:
    shares = slot_shares(np.array([0, 0, 0, 1, 2, 3, 4, 5]), np.arange(8), np.zeros(8, dtype=np.int64), 6, MODULO)
    assert shares[:3].tolist() == [3 / 8, 3 / 8, 2 / 8]


def skewed(rule: str) -> PlacementProblem:
    random = np.random.default_rng(0)
    counts = (random.lognormal(0, 1, (1, 3, 32)) * random.lognormal(0, 0.2, (4, 3, 32)) * 1000).astype(np.int64)
    return PlacementProblem(Windows("train", counts), np.arange(16) // 4, np.full(16, 3), dispatch=dispatch.find(rule))


@pytest.mark.parametrize("rule", ["sglang", "vllm-ascend", "nearest"])
@pytest.mark.parametrize("strategy", ["lpt", "flash", "multiwindow"])
def test_a_plan_made_under_a_rule_is_better_under_it(rule: str, strategy: str) -> None:
    own, even = skewed(rule), skewed("even")
    under = judge(own, plan(own, strategy).placement, "under").objective
    beside = judge(own, plan(even, strategy).placement, "even").objective
    assert under <= beside * (1 + 1e-9)
    if rule == "sglang":
        assert under < 0.98 * beside


def test_replicas_that_relieve_nothing_are_not_bought_one_by_one() -> None:
    """Two nodes of four under SGLang's dispatch: a third replica leaves the busiest at a half."""
    one = PlacementProblem(Windows("t", np.ones((1, 1, 8), dtype=np.int64)), np.arange(8) // 4, np.full(8, 2),
                           dispatch=dispatch.find("sglang"))  # fmt: skip
    assert one.relief[1:5].tolist() == [1, 0.5, 0.5, 0.375]
    load = np.array([[80.0, 30, 1, 1]])
    assert replicate(load, 2, 8, one.relief).tolist() == [[2, 2, 1, 1]]
    assert replicate(load, 2, 8).tolist() == [[3, 1, 1, 1]]


@pytest.mark.parametrize("windows", [5, 60], ids=["one program", "stretches"])
def test_weights_planned_on_windows_are_never_worse_than_equal_ones_there(windows: int) -> None:
    for seed in range(4):
        random = np.random.default_rng(seed)
        counts = np.where(random.random((windows, 2, 12)) < 0.1, 100, 1)  # stretches are more even than windows
        rows = np.concatenate([np.stack([random.permutation(12) for _ in range(2)]), random.integers(0, 12, (2, 4))], 1)
        values = {}
        for rule in ("even", "weighted"):
            one = PlacementProblem(
                Windows("t", counts), np.zeros(4, dtype=np.int64), np.full(4, 4), dispatch=dispatch.find(rule)
            )
            values[rule] = judge(one, one.place(rows), rule).objective
        assert values["weighted"] <= values["even"] * (1 + 1e-9)


def test_every_rule_s_shares_add_up_to_one() -> None:
    for name in dispatch.REGISTRY:
        one = skewed(name)
        placement = plan(one, "multiwindow").placement
        shares = dispatch.find(name).shares(one, placement, one.train)
        for window in shares:
            for layer, row in enumerate(window):
                assert np.allclose(np.bincount(placement.slot_expert[layer], row), 1)
