"""Scaling: replicas of a pool that are started, serve, get no more requests and are stopped; how long each is paid."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, groupby

from moesim.serving.autoscaler import REGISTRY, Look

ALMOST = 1e-9  # of a replica: rounding of the formula is no reason to start one


class Phase(IntEnum):
    """Of a replica."""

    OFF = 0
    STARTING = 1
    ON = 2
    DRAINING = 3


@dataclass(frozen=True)
class Scaling:
    """rule: of REGISTRY, with its target; replicas at least, at most and to begin with; ps from look to look, until a
    new one serves, and for which the most that was wanted is kept.
    """

    rule: str
    target: float
    least: int
    most: int
    first: int
    every: int
    startup: int
    patience: int


class Scaler:
    """numbers: of its replicas among those of all pools, from `begin` on; phase: of each; ups, downs: replicas that
    were started, and let go.
    """

    def __init__(self, scaling: Scaling, begin: int = 0) -> None:
        self.scaling, self.numbers = scaling, range(begin, begin + scaling.most)
        there = self.numbers[: scaling.first]
        self.phase = {number: Phase.ON if number in there else Phase.OFF for number in self.numbers}
        self.ups = self.downs = 0
        self._ready: dict[int, int] = {}  # replica that is starting -> ps at which it serves
        self._since = dict.fromkeys(there, 0)  # replica -> ps from which it is paid
        self._paid: list[tuple[int, int, int]] = []
        self._wanted: deque[tuple[int, int]] = deque()  # ps of looks within patience, and replicas wanted

    def decide(self, look: Look, now: int) -> int:
        """Replicas that there should be."""
        own, wanted = self.scaling, REGISTRY[self.scaling.rule](look, self.scaling.target)
        self._wanted.append((now, min(max(math.ceil(wanted - ALMOST), own.least), own.most)))
        while self._wanted[0][0] < now - own.patience:
            self._wanted.popleft()
        return max(many for _, many in self._wanted)

    def move(self, wanted: int, dead: Sequence[int], loads: Sequence[int], now: int) -> list[int]:
        """Start or let go, to have so many that live -> those that are started. Who is let go and has requests takes no
        more; those come back first when more are wanted, those that are starting or have least to do go first.
        """
        here = [n for n, phase in self.phase.items() if phase in (Phase.STARTING, Phase.ON) and not dead[n]]
        more, started = wanted - len(here), []
        idle = sorted((phase != Phase.DRAINING, n) for n, phase in self.phase.items()
                      if phase in (Phase.OFF, Phase.DRAINING) and not dead[n])  # fmt: skip
        for off, number in idle[: max(more, 0)]:
            self.ups += 1
            self.phase[number] = Phase.STARTING if off else Phase.ON
            if off:
                self._ready[number], self._since[number] = now + self.scaling.startup, now
                started.append(number)
        order = sorted(here, key=lambda n: (self.phase[n] == Phase.ON, loads[n], -n))
        for number in order[: max(-more, 0)]:
            self.downs += 1
            self.phase[number] = Phase.DRAINING
        return started

    def serves(self, number: int, now: int) -> None:
        """A replica has started, if it was not let go meanwhile."""
        if self.phase[number] == Phase.STARTING and self._ready[number] == now:
            self.phase[number] = Phase.ON

    def draining(self) -> list[int]:
        """Replicas that were let go and are not stopped."""
        return [number for number, phase in self.phase.items() if phase == Phase.DRAINING]

    def stop(self, number: int, now: int) -> None:
        """It is empty, and not paid any more."""
        self.phase[number] = Phase.OFF
        self._paid.append((number, self._since.pop(number), now))

    def paid(self, begin: int, end: int) -> int:
        """ps between two times that replicas were paid, all together: while they start, serve and empty."""
        return sum(max(min(until, end) - max(since, begin), 0) for _, since, until in self.spans(end))

    def curve(self, end: int) -> list[tuple[int, int]]:
        """(ps, replicas that are paid from then on), wherever it changes before `end`."""
        steps = sorted(
            (at, by) for _, since, until in self.spans(end) for at, by in ((since, 1), (until, -1)) if at < end
        )
        change = {at: sum(by for _, by in many) for at, many in groupby(steps, lambda step: step[0])}
        return list(zip(change, accumulate(change.values()), strict=True))

    def spans(self, end: int) -> list[tuple[int, int, int]]:
        """(replica, from when, to when) it is paid, those to `end` that are not stopped."""
        return [*self._paid, *((number, since, end) for number, since in self._since.items())]
