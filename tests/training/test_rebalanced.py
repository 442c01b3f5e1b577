"""Experts of a training run that move: what moves, by hand, and that a step knows where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement import PlacementProblem, Windows
from moesim.placement.online import Policy, decide
from moesim.routing import Sampled
from moesim.routing.sources.in_places import Limit
from moesim.routing.sources.sequences import Sequences
from moesim.training import routed_step
from moesim.training.rebalanced import cost_of, rebalanced
from tests.training.test_routed import MODEL, job, sequences

EXPERT = 3 * 1024 * 512


def swapped(*layers: int) -> Placement:
    """The first and the last expert change places in these layers: ranks 0 and 3 take one each."""
    table = np.tile(np.arange(16, dtype=np.int32), (7, 1))
    for layer in layers:
        table[layer, [0, 15]] = table[layer, [15, 0]]
    return Placement(table, np.tile(np.arange(16, dtype=np.int32) // 4, (7, 1)), 16, 4)


@pytest.mark.parametrize(("world", "states"), [(16, 12), (32, 6)])
def test_an_expert_moves_with_the_states_that_its_rank_keeps(world: int, states: int) -> None:
    """bf16 weights and 12 bytes of Adam, which two groups share: each moves two experts in two of four stages."""
    one = job(world=world)
    found = cost_of(one, one.placement(one.model), swapped(0, 6))
    assert found.moves == 4 and found.moved == 4 * EXPERT * (2 + states) * (world // 16)
    alone = cost_of(one, one.placement(one.model), swapped(6))
    assert found.stall == pytest.approx(alone.stall)  # stages move beside each other


def test_layers_of_one_stage_move_one_after_the_other() -> None:
    one = job()
    both, alone = (cost_of(one, one.placement(one.model), swapped(*layers)) for layers in ((5, 6), (6,)))
    assert both.moved == 2 * alone.moved and 1.5 < both.stall / alone.stall <= 2.0


def test_what_was_seen_is_planned_on_and_what_stays_costs_nothing() -> None:
    policy, source = Policy(1, 1, 0.0, None, "eplb"), sequences()
    first, second, third = rebalanced(job(), policy, [source, source, source])
    assert first[2:] == (0.0, 0, 0) and first.seconds == first.still == second.still
    assert second.seconds < second.still and second.moves > 0 and second.stall > 0
    assert third.seconds == second.seconds and third.moves == 0


def test_each_look_is_planned_on_the_load_before_it_and_none_on_the_load_that_it_meets() -> None:
    """Three different loads: where experts are at the second and third look is what the load before them asks for."""
    one, policy = job(), Policy(1, 1, 0.0, None, "eplb")
    met = [Sequences(Sampled("prefill_in4096", MODEL, seed), 8) for seed in (3, 4, 5)]
    windows = [routed_step(one, source).load for source in met]
    problem = PlacementProblem.on(one.cluster, Windows("loads", windows[0][None]), ranks=4)
    now, seen = one.placement(MODEL), list(rebalanced(one, policy, met))
    for before, load, source, look in zip(windows, windows[1:], met[1:], seen[1:], strict=False):
        oracle = decide(policy, problem, now, (load,)).placement
        now = decide(policy, problem, now, (before,)).placement
        assert look.seconds == routed_step(replace(one, placed=now), source).seconds
        assert look.seconds != routed_step(replace(one, placed=oracle), source).seconds


def test_load_of_experts_with_places_is_what_is_not_dropped() -> None:
    """64 places of a rank's rows at each expert: the kept rows of all are what the drop rate leaves."""
    free, cut = routed_step(job(), sequences()), routed_step(job(limit=Limit(1.0)), sequences())
    assert cut.load.sum() == round(free.load.sum() * (1 - cut.drop_rate)) < free.load.sum()
    assert np.all(cut.load <= np.minimum(free.load, 4 * 8 * 64)) and cut.load.max() == 4 * 8 * 64


def test_no_expert_moves_where_empty_places_are_filled() -> None:
    with pytest.raises(BadInput, match="every expert takes as many rows") as error:
        next(rebalanced(job(limit=Limit(1.0, pad=True)), Policy(), list[Sequences]()))
    assert "pad_to_capacity: false" in error.value.way_out


def test_load_is_what_tokens_choose_wherever_experts_are() -> None:
    one, other = routed_step(job(), sequences()), routed_step(job(placed=swapped(0, 3)), sequences())
    assert one.load.tolist() == other.load.tolist() and one.load.sum() == 7 * 8 * 4 * 256 * 4


def test_no_expert_moves_on_one_rank() -> None:
    with pytest.raises(BadInput, match="no expert can move"):
        next(rebalanced(job(expert=1), Policy(), list[Sequences]()))
