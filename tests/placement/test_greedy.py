"""greedy: spare slots to the hottest experts, replicas apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moesim.hardware import load_cluster
from moesim.layout import Placement
from moesim.placement import PlacementProblem, Windows, solve

CLUSTER = load_cluster("dgx-h100")


def greedy(load: list[int], redundant: int, ranks: int = 2) -> Placement:
    train = Windows("train", np.array([[load]]))
    return solve(PlacementProblem.on(CLUSTER, train, ranks=ranks, redundant=redundant), "greedy").placement


@given(st.lists(st.integers(0, 1000), min_size=6, max_size=6), st.integers(0, 6))
def test_spare_slots_go_to_the_hottest(load: list[int], spare: int) -> None:
    replicas = greedy(load, spare).replicas[0]
    assert replicas.sum() == 6 + spare and replicas.min() >= 1
    share = np.array(load) / replicas
    given_more = replicas > 1
    if given_more.any():  # one replica less would have left that expert hotter than any other is now
        before = np.array(load)[given_more] / (replicas[given_more] - 1)
        assert before.min() >= share.max() - 1e-9


def test_replicas_of_an_expert_go_to_different_ranks() -> None:
    placement = greedy([100, 1, 1, 1], redundant=2)
    slots = placement.expert_slots[0, 0]
    assert len(slots[slots >= 0]) == 3 and len({int(placement.slot_rank[0, s]) for s in slots}) == 2
