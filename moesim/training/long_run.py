"""Many steps in a row: checkpoints, failures, restarts. A loop over failures; between two of them nothing is drawn.

Training stands while a checkpoint is written. A failure loses what was done since the last one; the job is set up
again, reads the checkpoint, and may fail while it does. Times between failures are exponential, those of all parts of
the machine together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Floats = npt.NDArray[np.float64]
HOPELESS: Final = 12.0  # failures expected between two checkpoints: e ** 12 attempts at each


@dataclass(frozen=True)
class LongRun:
    """seconds float64[n] of each step; every: steps between checkpoints; write, restart: seconds of one, of getting
    back to the last one. rates: failures a second of the whole machine, by what fails. Raises BadInput where it never
    ends.
    """

    seconds: Floats
    every: int
    write: float
    restart: float
    rates: Mapping[str, float]

    def __post_init__(self) -> None:
        each = self.rate * max(float(np.diff(self.ends, prepend=0.0).max()), self.restart)
        if each > HOPELESS:
            raise BadInput(f"{each:.1f} failures are expected between two checkpoints, or in a restart: it never ends",
                           way_out="checkpoint_every: fewer steps, or a shorter restart")  # fmt: skip

    @property
    def rate(self) -> float:
        """Failures a second."""
        return sum(self.rates.values())

    @cached_property
    def ends(self) -> Floats:
        """float64[checkpoints] seconds at which each is written, if nothing fails; the last behind the last step."""
        done = np.cumsum(self.seconds)
        last = np.append(np.arange(self.every, len(done), self.every), len(done))
        found: Floats = done[last - 1] + self.write * np.arange(1, len(last) + 1)
        return found

    @property
    def again(self) -> float:
        """The most that the chance of a second failure can be in a run that has failed: all of it is before it."""
        return -math.expm1(-self.rate * (float(self.ends[-1]) + self.restart))

    def play(self, random: np.random.Generator) -> Played:
        """One run."""
        return self._played(random.exponential(1.0 / self.rate) if self.rate else math.inf, random)

    def trial(self, random: np.random.Generator) -> Trial:
        """One run without any failure, and one with: its first failure is drawn from those that come before the end, so
        that rare ones are in every trial by their chance, and not in a few of many by luck.
        """
        chance = -math.expm1(-self.rate * float(self.ends[-1]))
        calm = self._played(math.inf, random)
        if not chance:
            return Trial(0.0, calm, calm)
        return Trial(chance, self._played(-math.log1p(-chance * random.random()) / self.rate, random), calm)

    def _played(self, failed: float, random: np.random.Generator) -> Played:
        """failed: seconds until the first failure."""
        ends = self.ends
        now = saved = lost = restarting = 0.0
        failures = 0
        while True:
            done = int(np.searchsorted(ends, saved + failed - now, side="right"))
            if done == len(ends):
                return self._told(now + float(ends[-1]) - saved, lost, restarting, self._kinds(failures, random))
            kept = float(ends[done - 1]) if done else 0.0
            lost += failed - now - (kept - saved)
            saved, failures = kept, failures + 1
            more, again = self._back(random)
            now, restarting, failures = failed + more, restarting + more, failures + again
            failed = now + random.exponential(1.0 / self.rate)

    def _back(self, random: np.random.Generator) -> tuple[float, int]:
        """Seconds until it goes on, and failures meanwhile."""
        spent, again = 0.0, 0
        while (after := random.exponential(1.0 / self.rate)) < self.restart:
            spent, again = spent + after, again + 1
        return spent + self.restart, again

    def _kinds(self, failures: int, random: np.random.Generator) -> dict[str, int]:
        if not failures:
            return dict.fromkeys(self.rates, 0)
        found = random.multinomial(failures, [rate / self.rate for rate in self.rates.values()])
        return dict(zip(self.rates, map(int, found), strict=True))

    def _told(self, wall: float, lost: float, restarting: float, failures: dict[str, int]) -> Played:
        return Played(wall, self.write * len(self.ends), lost, restarting, failures)

    @property
    def expected(self) -> float:
        """Seconds of the whole run on average. Daly, "A higher order estimate of the optimum checkpoint interval for
        restart dumps" (2006), equation 20: of a stretch of t seconds with its checkpoint
        e^(r restart) (e^(r t) - 1) / r.
        """
        stretch = np.diff(self.ends, prepend=0.0)
        if not self.rate:
            return float(stretch.sum())
        return float(math.exp(self.rate * self.restart) * np.expm1(self.rate * stretch).sum() / self.rate)


@dataclass(frozen=True)
class Played:
    """Seconds of a run, and of them those spent writing checkpoints that were kept, on work that was lost, and getting
    back; failures by what failed.
    """

    wall: float
    writing: float
    lost: float
    restarting: float
    failures: Mapping[str, int]


@dataclass(frozen=True)
class Trial:
    """Something fails by `chance`: what a run is then, and what it is else."""

    chance: float
    failing: Played
    calm: Played

    def mean(self, of: Callable[[Played], float]) -> float:
        """Of both, by their chances."""
        return self.chance * of(self.failing) + (1.0 - self.chance) * of(self.calm)


def young_seconds(write: float, mtbf: float) -> float:
    """Of work between two checkpoints, so that least is lost: Young, "A first order approximation to the optimum
    checkpoint interval" (1974).
    """
    return math.sqrt(2.0 * write * mtbf)


def slowed(seconds: Floats, chance: float, factor: float, random: np.random.Generator) -> Floats:
    """Steps float64[n] of which each meets a straggler by `chance`, and then takes `factor` times as long."""
    return np.where(random.random(len(seconds)) < chance, seconds * factor, seconds)
