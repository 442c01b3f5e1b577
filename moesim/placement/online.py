"""Online rebalancing: a stream of load windows in, now and then another placement out.

Pure: no clock and no engine. `observe` takes one window and says whether to move; whoever serves calls it, pays the
stall, and goes on with the new placement. `replay` does that for recorded windows and adds up what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, DoesNotFit
from moesim.layout import Placement
from moesim.network import Fabric
from moesim.placement.different import clusters, one_each
from moesim.placement.migration import Migration, migrate
from moesim.placement.moves import count_moves
from moesim.placement.problem import PlacementProblem
from moesim.placement.solve import plan
from moesim.placement.windows import Windows

Counts = npt.NDArray[np.int64]
MOST_KEPT = 64  # windows of the history that are planned on


@dataclass(frozen=True)
class Policy:
    """interval: windows between two looks; look_back: latest windows that are planned on, None for all that were seen,
    near copies together and each different load with the same weight; hysteresis: least relative gain of the objective
    on them that is worth a change; max_moved: share of all slots that one change may move, None for no limit; strategy:
    who plans. vLLM and SGLang look every `step_interval` steps and move whatever EPLB says. Raises BadInput.

    Loads come back: who plans on the last windows alone undoes what the next regime needs.
    """

    interval: int = 4
    look_back: int | None = None
    hysteresis: float = 0.02
    max_moved: float | None = 0.05
    strategy: str = "incremental"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.interval < 1 or (self.look_back is not None and self.look_back < 1):
            raise BadInput(f"interval {self.interval}, look_back {self.look_back}", way_out="1 or more windows")
        if not 0 <= self.hysteresis < 1 or not (self.max_moved is None or 0 < self.max_moved <= 1):
            raise BadInput(f"hysteresis {self.hysteresis}, max_moved {self.max_moved}", way_out="shares below 1")


@dataclass(frozen=True)
class Decision:
    """placement: from now on; gain: what it saves on the windows looked at, relative; moves: experts that it moves;
    changed: whether it is another one than before; reason: in words.
    """

    placement: Placement
    changed: bool
    gain: float
    moves: int
    reason: str


@dataclass(frozen=True)
class State:
    """placement now; recent: counts int64[layers, experts] of the windows to plan on; waited: windows since a look."""

    placement: Placement
    recent: tuple[Counts, ...] = ()
    waited: int = 0


def observe(policy: Policy, problem: PlacementProblem, state: State, window: Counts) -> tuple[State, Decision | None]:
    """int64[layers, experts] counts of one window -> the next state, and a decision where it was time to look.

    `problem` lends its cluster, slots, objective and dispatch; its own windows are not looked at.
    """
    recent = (*state.recent, window)[-(policy.look_back or MOST_KEPT) :]
    if state.waited + 1 < policy.interval:
        return State(state.placement, recent, state.waited + 1), None
    made = decide(policy, problem, state.placement, recent)
    return State(made.placement, recent, 0), made


def decide(policy: Policy, problem: PlacementProblem, now: Placement, recent: Sequence[Counts]) -> Decision:
    """Plan on recent windows within the budget of moves, and change only where that gains enough. Raises BadInput."""
    budget = None if policy.max_moved is None else int(policy.max_moved * now.num_slots * now.num_layers)
    seen = np.stack(recent) if policy.look_back else one_each(recent, clusters(recent))
    asked = replace(problem, train=Windows("recent", seen), previous=now, move_budget=budget)
    try:
        found = plan(asked, policy.strategy, seed=policy.seed).placement
    except DoesNotFit as error:
        return Decision(now, False, 0.0, 0, f"kept: {error}")
    gain, moves = 1 - value(asked, found) / value(asked, now), count_moves(now, found)
    if gain < policy.hysteresis or not moves:
        return Decision(now, False, gain, 0, f"kept: {policy.strategy} would gain {gain:.1%}")
    return Decision(found, True, gain, moves, f"changed: gains {gain:.1%} with {moves} moves")


def value(problem: PlacementProblem, placement: Placement) -> float:
    """The problem's objective on its own windows."""
    return float(problem.objective.evaluate(problem, placement, problem.train).mean())


@dataclass(frozen=True)
class Change:
    """After which window a placement changed, why, and what moving cost (None where no links were given)."""

    window: int
    decision: Decision
    migration: Migration | None


@dataclass(frozen=True)
class Replayed:
    """objective float64[W]: of each window under the placement that stood while it ran; changes in order."""

    objective: npt.NDArray[np.float64]
    changes: tuple[Change, ...]
    placement: Placement
    looks: int
    kept: tuple[str, ...] = field(default=(), repr=False)

    @property
    def moves(self) -> int:
        """Experts moved in all."""
        return sum(change.decision.moves for change in self.changes)

    @property
    def stall_s(self) -> float | None:
        """Seconds that steps waited for weights, in all; None where something moved and no links were given."""
        costs = [change.migration for change in self.changes]
        return None if None in costs else sum(cost.seconds for cost in costs if cost)


def replay(
    policy: Policy, problem: PlacementProblem, start: Placement, windows: Windows, *, fabric: Fabric | None = None,
    expert_bytes: int = 0, layers_per_step: int | None = None,
) -> Replayed:  # fmt: skip
    """The policy on recorded windows, one after the other; each window runs under what was decided before it.

    With a fabric and the bytes of an expert, moves become bytes on links and seconds (see `migrate`).
    """
    state, scores, changes, kept = State(start), [], list[Change](), list[str]()
    for number, window in enumerate(windows.counts):
        alone = replace(problem, train=Windows("window", window[None]), previous=None, move_budget=None)
        scores.append(value(alone, state.placement))
        before = state.placement
        state, made = observe(policy, problem, state, window)
        if made is not None and made.changed:
            cost = None
            if fabric is not None:
                cost = migrate(before, made.placement, fabric, expert_bytes, layers_per_step=layers_per_step)
            changes.append(Change(number, made, cost))
        elif made is not None:
            kept.append(made.reason)
    return Replayed(np.array(scores), tuple(changes), state.placement, len(changes) + len(kept), tuple(kept))
