"""Rebalancing in the loop: experts that move between GPUs every so many steps, as the load of the latest ones says.

As vLLM and SGLang do (EPLB): nothing is served while the weights of a changed placement are copied. The load is counted
on PROBES steps of a window or a few more, evenly apart, of tokens that go through the experts then. A strategy and a
threshold decide (placement/online.py); the step with which a look falls together pays the copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement
from moesim.placement import PlacementProblem
from moesim.placement.migration import migrate
from moesim.placement.online import Policy, decide
from moesim.serving.clock import Clock, Grows
from moesim.serving.requests import Ints
from moesim.step import Batch, StepPlan
from moesim.units import to_ps

PROBES: Final = 16
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rebalance:
    """every: steps from one look to the next; window: the latest of them, whose load counts; problem: lends its
    cluster, slots and objective; expert_bytes: of one expert in one layer; groups: expert-parallel ones, all alike.
    """

    every: int
    window: int
    policy: Policy
    problem: PlacementProblem
    expert_bytes: int
    groups: int = 1

    @property
    def apart(self) -> int:
        """Steps from one that is counted to the next."""
        return max(self.window // PROBES, 1)

    def until_next(self, step: int) -> int:
        """Steps after this one until the next that is counted, as each look's is."""
        left = -step % self.every or self.every
        return left - min((left - 1) // self.apart, (self.window - 1) // self.apart) * self.apart


@dataclass(frozen=True)
class Change:
    """After which step of a replica experts moved; how many, their bytes over links, seconds that the step waited."""

    step: int
    moves: int
    bytes: int
    seconds: float


class Rebalanced:
    """The clock of one replica, of a plan whose placement changes; clock: by its first one; make: by another."""

    def __init__(self, clock: Clock, plan: StepPlan, rule: Rebalance, make: Callable[[Placement], Clock]) -> None:
        self._clock, self._plan, self._rule, self._make = clock, plan, rule, make
        self.placement = plan.placement
        self.changes: list[Change] = []
        self.looks = self._steps = 0
        self._load: Counts = np.zeros((len(plan.model.moe_layers), plan.model.num_experts), dtype=np.int64)

    def ps(self, batch: Batch) -> int:
        """Ticks of a step, and of what it waits for."""
        return self._clock.ps(batch) + self._played(batch, 1)

    def ends(self, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
        """See Clock: from one step that is counted to the next."""
        found, left = [], most
        while True:
            most = min(left, self._rule.until_next(self._steps))
            part = self._clock.ends(batch, grows, now, horizon, most, least).copy()
            part[-1] += self._played(batch.onward(grows * (len(part) - 1)), len(part))
            found.append(part)
            now, left = int(part[-1]), left - len(part)
            if not left or now >= horizon:
                return np.concatenate(found)
            batch = batch.onward(grows * len(part))

    def _played(self, last: Batch, steps: int) -> int:
        """So many steps were played -> ps that the last of them has to wait."""
        counted = self._rule.until_next(self._steps) == steps
        self._steps += steps
        if not counted:
            return 0
        self._load += loads(self._plan, last)
        return 0 if self._steps % self._rule.every else self._look()

    def _look(self) -> int:
        rule, before, load = self._rule, self.placement, self._load
        self._load, self.looks = np.zeros_like(load), self.looks + 1
        if not load.any():
            return 0
        made = decide(rule.policy, rule.problem, before, (load,))
        if not made.changed:
            return 0
        cost = migrate(before, made.placement, self._plan.fabric, rule.expert_bytes)
        self.changes.append(Change(self._steps, made.moves * rule.groups, cost.bytes * rule.groups, cost.seconds))
        self.placement, self._clock = made.placement, self._make(made.placement)
        return int(to_ps(cost.seconds))


def loads(plan: StepPlan, batch: Batch) -> Counts:
    """int64[layers, experts]: rows of each expert in a step."""
    found = np.zeros((len(plan.model.moe_layers), plan.model.num_experts), dtype=np.int64)
    for layer, row in enumerate(found):
        chosen = plan.routing.experts(layer, batch.token_request, batch.token_position).ravel()
        row += np.bincount(chosen, minlength=2**16)[: len(row)]
    return found
