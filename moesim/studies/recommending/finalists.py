"""Finalists: which candidates of a screened space are worth a simulation.

Rounds. First those that the screen puts on its front; then whoever could still stand on the simulated front, were the
screen as far off for it as it was, at most, for those that were simulated; the next best where these are fewer than
FEWEST. What is left could get there only by a larger error of the screen than any that was seen: so the search says why
it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.studies.fronts import undominated

Floats = npt.NDArray[np.float64]
LEAST_SLACK: Final = 0.05  # of an estimate, however good the screen was so far
ROUNDS: Final = 3  # that the budget is divided into: each starts processes
FEWEST: Final = 8  # runs, up to the budget: one deployment's error says little of others (one had twice its estimate)


class Reached(NamedTuple):
    """What a simulation gave: float64[columns], as estimated; meets: all limits."""

    values: Floats
    meets: bool


Known = dict[int, Reached | None]
Simulate = Callable[[Sequence[int]], Known]


@dataclass(frozen=True)
class Screen:
    """estimates float64[n, columns], larger is better, above 0; the first `goals` columns make the front, and every
    column has a floor float64[columns] below which no limit can be met.
    """

    estimates: Floats
    goals: int
    floor: Floats

    def alive(self, known: Known, slack: Floats) -> npt.NDArray[np.int64]:
        """Candidates, at the best that is believed of them, that meet the limits and that no simulated one beats."""
        best = self.estimates * (1 + slack)
        able = np.flatnonzero(np.all(best >= self.floor, axis=1))
        rest = np.setdiff1d(able, list(known)).astype(np.int64)
        front = np.array([one.values[: self.goals] for one in known.values() if one is not None and one.meets])
        if not len(front) or not len(rest):
            return rest
        beaten = np.any(np.all(front[None, :, :] >= best[rest, None, : self.goals], axis=2), axis=1)
        return np.asarray(rest[~beaten])

    def rest(self, known: Known) -> npt.NDArray[np.int64]:
        """Who was not simulated, while FEWEST were not; nobody after that."""
        if len(known) >= FEWEST:
            return np.zeros(0, dtype=np.int64)
        told = np.flatnonzero(np.isfinite(self.estimates).all(axis=1))
        return np.setdiff1d(told, list(known)).astype(np.int64)

    def nearest(self, size: int) -> list[int]:
        """So many that come nearest to their limits."""
        short = np.min(self.estimates / np.maximum(self.floor, 1e-12), axis=1)
        return [int(row) for row in np.argsort(-short, kind="stable")[:size]]

    def slack(self, known: Known) -> Floats:
        """float64[columns]: how far above its estimate a simulation came at most."""
        rows = [row for row, one in known.items() if one is not None]
        if not rows:
            return np.full(self.estimates.shape[1], LEAST_SLACK)
        ratios = np.array([one.values for one in known.values() if one is not None]) / self.estimates[rows]
        return np.asarray(np.maximum(ratios.max(axis=0) - 1, LEAST_SLACK))

    def best(self, alive: npt.NDArray[np.int64], size: int) -> list[int]:
        """So many of them: the front, then the front of the rest, and so on; those first that should meet all limits. A
        front that is too long is thinned evenly.
        """
        likely = (self.estimates[alive] >= self.floor).all(axis=1)
        chosen: list[int] = []
        for some in (alive[likely], alive[~likely]):
            while len(some) and len(chosen) < size:
                front = some[undominated(self.estimates[some, : self.goals])]
                front = front[np.argsort(self.estimates[front, 0], kind="stable")]
                room = min(size - len(chosen), len(front))
                places = np.linspace(0, len(front) - 1, room).round().astype(np.int64)
                chosen += [int(row) for row in front[places]]
                some = np.setdiff1d(some, front)
        return chosen


@dataclass(frozen=True)
class Found:
    """known: what was simulated, in order; left: candidates that may yet belong to the front; slack: of each column,
    what was added to the estimates of those that were left out.
    """

    known: Known
    left: tuple[int, ...]
    slack: tuple[float, ...]


def finalists(screen: Screen, simulate: Simulate, budget: int) -> Found:
    """simulate: numbers -> what they reach, None where a run fails; budget: simulations at most."""
    known: Known = {}
    slack = np.full(screen.estimates.shape[1], LEAST_SLACK)
    alive, size = screen.alive(known, slack), max(-(-budget // ROUNDS), 1)
    if not len(alive):  # limits that no estimate can meet are not told from a bad estimate but by a simulation
        known |= simulate(screen.nearest(min(size, budget)))
        slack = screen.slack(known)
        alive = screen.alive(known, slack)
    while len(known) < budget and len(some := alive if len(alive) else screen.rest(known)):
        known |= simulate(screen.best(some, min(size, budget - len(known))))
        slack = screen.slack(known)
        alive = screen.alive(known, slack)
    return Found(known, tuple(map(int, alive)), tuple(map(float, slack)))
