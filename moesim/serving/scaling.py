"""Scaling: replicas that are started, serve, get no more requests and are stopped; and for how long each is paid."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

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
    """phase: of every replica; ups, downs: replicas that were started, and let go."""

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self.phase = [Phase.ON if number < scaling.first else Phase.OFF for number in range(scaling.most)]
        self.ups = self.downs = 0
        self._ready = [0] * scaling.most  # ps at which one that is starting serves
        self._since: dict[int, int] = dict.fromkeys(range(scaling.first), 0)  # replica -> ps from which it is paid
        self._paid: list[tuple[int, int]] = []
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
        here = [n for n, phase in enumerate(self.phase) if phase in (Phase.STARTING, Phase.ON) and not dead[n]]
        more, started = wanted - len(here), []
        idle = sorted((self.phase[n] != Phase.DRAINING, n) for n, phase in enumerate(self.phase)
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

    def stop(self, number: int, now: int) -> None:
        """It is empty, and not paid any more."""
        self.phase[number] = Phase.OFF
        self._paid.append((self._since.pop(number), now))

    def paid(self, begin: int, end: int) -> int:
        """ps between two times that replicas were paid, all together: while they start, serve and empty."""
        spans = (*self._paid, *((since, end) for since in self._since.values()))
        return sum(max(min(until, end) - max(since, begin), 0) for since, until in spans)
