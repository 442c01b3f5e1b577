"""Online rebalancing: when to look, when to move, how much, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from moesim.costs import load_costs
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.network import Fabric
from moesim.placement import PlacementProblem, Windows, count_moves, solve
from moesim.placement.online import Policy, State, decide, observe, replay

CLUSTER = load_cluster("dgx-h100")
FREE = Policy(interval=1, look_back=1, hysteresis=0.0, max_moved=None, strategy="greedy")
Counts = npt.NDArray[np.int64]


def loads(seed: int, windows: int = 6, layers: int = 2, experts: int = 16) -> Counts:
    """Windows of one popularity: multinomial counts of 4,000 choices a layer."""
    rng = np.random.default_rng(seed)
    popularity = rng.dirichlet(np.full(experts, 0.7), layers)
    return np.stack([[rng.multinomial(4000, row) for row in popularity] for _ in range(windows)])


def problem(counts: Counts) -> PlacementProblem:
    return PlacementProblem.on(CLUSTER, Windows("train", counts), redundant=8)


def planned(counts: Counts, strategy: str = "greedy") -> PlacementProblem:
    one = problem(counts)
    return replace(one, previous=solve(one, strategy).placement)


def test_it_looks_every_interval_and_remembers_look_back_windows() -> None:
    one, policy = planned(loads(1)), replace(FREE, interval=3, look_back=2)
    assert one.previous is not None
    state, looked = State(one.previous), []
    for window in loads(2):
        state, made = observe(policy, one, state, window)
        looked.append(made is not None)
    assert looked == [False, False, True, False, False, True]
    assert len(state.recent) == 2 and np.array_equal(state.recent[-1], loads(2)[-1])


def test_without_drift_hysteresis_keeps_what_stands_and_without_it_noise_moves_experts() -> None:
    counts = loads(3)
    one = planned(counts[:2])
    assert one.previous is not None
    still = replay(replace(FREE, hysteresis=0.15), one, one.previous, Windows("later", counts[2:]))
    nervous = replay(FREE, one, one.previous, Windows("later", counts[2:]))
    assert still.moves == 0 and len(still.kept) == still.looks == 4
    assert nervous.moves > 0


def test_after_drift_it_moves_and_the_next_windows_are_better() -> None:
    one = planned(loads(4))
    assert one.previous is not None
    later = Windows("later", loads(5))
    followed = replay(FREE, one, one.previous, later)
    stayed = replay(replace(FREE, hysteresis=0.99), one, one.previous, later)
    assert followed.changes[0].window == 0 and followed.changes[0].decision.gain > 0.1
    assert followed.objective[0] == stayed.objective[0]  # the first window is served before anything is known
    assert followed.objective[1:].mean() < stayed.objective[1:].mean()
    assert followed.moves == sum(change.decision.moves for change in followed.changes) > 0


def test_a_budget_that_a_strategy_would_break_keeps_what_stands_and_says_why() -> None:
    one = planned(loads(6))
    assert one.previous is not None
    made = decide(replace(FREE, max_moved=0.03), one, one.previous, list(loads(7)))
    assert not made.changed and made.placement is one.previous
    assert "greedy moves" in made.reason and "budget is 1" in made.reason


def test_the_usual_policy_stays_within_its_budget_and_gains_after_drift() -> None:
    one = planned(loads(12, experts=64), "multiwindow")
    assert one.previous is not None
    policy = replace(Policy(), interval=2, look_back=2)
    later = Windows("later", loads(13, windows=8, experts=64))
    done = replay(policy, one, one.previous, later)
    most = int(policy.max_moved * one.previous.num_slots * 2)  # type: ignore[operator]
    assert done.changes and all(0 < change.decision.moves <= most for change in done.changes)
    assert done.objective[-2:].mean() < 0.97 * done.objective[:2].mean()


def test_moves_of_a_decision_are_those_between_its_placements() -> None:
    one = planned(loads(8))
    assert one.previous is not None
    made = decide(FREE, one, one.previous, list(loads(9)))
    assert made.changed and made.moves == count_moves(one.previous, made.placement)


def test_the_stall_is_what_moving_takes_on_the_links() -> None:
    one, size = planned(loads(10)), 44_040_192
    assert one.previous is not None
    fabric = Fabric(CLUSTER, load_costs("h100_sxm", CLUSTER.devices[0]).communication)
    done = replay(FREE, one, one.previous, Windows("later", loads(11)), fabric=fabric, expert_bytes=size)
    for change in done.changes:
        assert change.migration is not None
        assert change.migration.bytes == change.decision.moves * size
    assert done.stall_s > done.moves * size / fabric.capacity.max() / 8  # 8 GPUs receive at the same time at best
    assert replay(FREE, one, one.previous, Windows("later", loads(11))).stall_s is None, "no links were given"


@pytest.mark.parametrize("wrong", [{"interval": 0}, {"look_back": 0}, {"hysteresis": 1.0}, {"max_moved": 0.0}])
def test_a_policy_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Policy(**wrong)  # type: ignore[arg-type]
