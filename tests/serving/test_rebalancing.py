"""Rebalancing in the loop: when it looks, what it counts, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.placement import Windows
from moesim.placement.migration import migrate
from moesim.placement.online import value
from moesim.serving.rebalancing import Rebalanced, loads
from moesim.serving.scheduler import Scheduler
from moesim.step import Batch, Phase
from moesim.studies.serving import Once, load_serving, run_serving
from moesim.studies.serving.build import ServeBuilt, build_serving

SMALL = (
    "model=tiny-moe", "routing={trace: tiny-moe}", "precision={}", "seeds=1",
    "experts={redundant: 8, placement: greedy}",
    "requests={number: 40, arrivals: {poisson: {rate: 300/s}}, input_length: 200, output_length: 20}",
)  # fmt: skip
MOVES = "rebalance={step_interval: 40, window_size: 20}"


def played(*changes: str) -> Once:
    return run_serving("qwen3-serve", overrides=(*SMALL, *changes)).first


@cache
def built(*changes: str) -> ServeBuilt:
    return build_serving(load_serving("qwen3-serve", [*SMALL, MOVES, *changes]), 0)


def clocks(once: Once) -> list[Rebalanced]:
    return [one.clock for one in once.served.replicas if isinstance(one.clock, Rebalanced)]


@pytest.mark.parametrize(("every", "window"), [(40, 20), (100, 100), (3000, 1000), (7, 1), (50, 31)])
def test_steps_that_are_counted_are_evenly_apart_and_end_with_the_look(every: int, window: int) -> None:
    rule = built().rebalance
    assert rule is not None
    rule = replace(rule, every=every, window=window)
    back = [-step % every for step in range(1, 3 * every + 1)]
    counted = [step for step, left in enumerate(back, start=1) if left < window and left % rule.apart == 0]
    found, at = [], 0
    while at < 3 * every:
        at += rule.until_next(at)
        found.append(at)
    assert found == counted and every in found and len(found) <= 3 * 31 and (window < 32 or len(found) <= 3 * 24)


def test_loads_are_those_of_the_tokens_of_the_step() -> None:
    plan = built().plan
    batch = Batch.of(8, [0, 3, 3], [5, 9, 2], [1, 1, 30], [70, 8, 10], [Phase.DECODE, Phase.DECODE, Phase.PREFILL])
    expected = np.zeros((len(plan.model.moe_layers), plan.model.num_experts), dtype=np.int64)
    for request, first, tokens in ((5, 70, 1), (9, 8, 1), (2, 10, 30)):
        for position in range(first, first + tokens):
            for layer in range(len(expected)):
                expected[layer, plan.routing.experts(layer, np.array([request]), np.array([position]))[0]] += 1
    assert np.array_equal(loads(plan, batch), expected)
    assert expected.sum() == 32 * plan.model.top_k * len(expected)


def test_the_step_of_a_look_waits_for_the_copies_and_the_next_has_the_new_placement() -> None:
    """Steps one by one: all but the looks' are those of a replica that never looks, by the placement of their time."""
    whole = built()
    rule = whole.rebalance
    assert rule is not None
    made = whole.clock()
    clock = Rebalanced(made, whole.plan, replace(rule, every=4, window=4), lambda place: replace(whole, plan=replace(
        whole.plan, placement=place)).clock())  # fmt: skip
    batch = Batch.of(8, np.arange(64) % 8, np.arange(64), 1, 50, Phase.DECODE)
    before, placement = whole.clock().ps(batch), whole.plan.placement
    first = [clock.ps(batch) for _ in range(5)]
    (change,) = clock.changes
    cost = migrate(placement, clock.placement, whole.plan.fabric, rule.expert_bytes)
    assert first[:3] == [before] * 3 and first[3] == before + round(cost.seconds * 1e12)
    assert first[4] == replace(whole, plan=replace(whole.plan, placement=clock.placement)).clock().ps(batch)
    assert change.bytes == cost.bytes == change.moves * rule.expert_bytes and change.step == 4
    each = whole.plan.model
    assert rule.expert_bytes == 3 * each.hidden_size * each.expert_intermediate * 2


def test_loads_are_more_even_after_it() -> None:
    """The objective on other tokens, from experts in order."""
    once = played(MOVES, "experts={}", "rebalance.window_size=40")
    (clock,) = clocks(once)
    assert clock.changes and clock.looks == once.served.replicas[0].steps // 40
    rule = once.built.rebalance
    assert rule is not None
    batch = Batch.of(8, np.arange(400) % 8, np.arange(400) % 40, 1, np.arange(400) // 40, Phase.DECODE)
    problem = replace(rule.problem, train=Windows("served", loads(once.built.plan, batch)[None]))
    assert value(problem, clock.placement) < value(problem, once.built.plan.placement)


def test_stretches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = (
        MOVES,
        "replicas=2",
        "requests={number: 40, arrivals: {poisson: {rate: 99/s}}, input_length: 200, output_length: 90}",
    )
    whole = played(*changes)
    monkeypatch.setattr(Scheduler, "stretch", lambda self, rows: 1)
    single = played(*changes)
    assert whole.numbers == single.numbers
    for one, other in zip(clocks(whole), clocks(single), strict=True):
        assert one.changes == other.changes and one.changes


def test_steps_of_all_placements_are_counted() -> None:
    once = played(MOVES)
    (lookups,) = once.lookups
    assert lookups["steps"] == once.served.replicas[0].steps > clocks(once)[0].changes[0].step


def test_what_is_never_worth_it_changes_nothing() -> None:
    moves, none = (played(*changes).numbers for changes in ((MOVES, "rebalance.hysteresis=0.99"), ()))
    assert {name: moves[name] for name in none} == none
    assert [moves[name][0] for name in ("rebalances", "moved_bytes", "rebalance_stall_s")] == [0, 0, 0]


def test_a_budget_limits_the_moves() -> None:
    def most(*changes: str) -> int:
        (clock,) = clocks(played(MOVES, "rebalance.strategy=incremental", *changes))
        return max((change.moves for change in clock.changes), default=0)

    slots = built().plan.placement
    assert most("rebalance.max_moved=0.05") <= 0.05 * slots.num_slots * slots.num_layers < most()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("parallel={tensor_parallel_size: 4}", "comm={}", "experts={}"), "rebalance: each expert lies across"),
        (("rebalance.strategy=affinity_greedy",), r"rebalance\.strategy"),
    ],
)  # fmt: skip
def test_what_cannot_move_is_refused(changes: tuple[Any, ...], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        built(*changes)
