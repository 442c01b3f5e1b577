"""Experts of a training run that move: what moves, by hand, and that a step knows where they are."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.online import Policy
from moesim.routing.sources.sequences import Sequences
from moesim.training.rebalanced import cost_of, rebalanced
from tests.training.test_routed import job, sequences

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


def test_load_is_what_tokens_choose_wherever_experts_are() -> None:
    from moesim.training import routed_step

    one, other = routed_step(job(), sequences()), routed_step(job(placed=swapped(0, 3)), sequences())
    assert one.load.tolist() == other.load.tolist() and one.load.sum() == 7 * 8 * 4 * 256 * 4


def test_no_expert_moves_on_one_rank() -> None:
    with pytest.raises(BadInput, match="no expert can move"):
        next(rebalanced(job(expert=1), Policy(), list[Sequences]()))
