"""How much is known: paired differences between two placements, and what no placement could gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from moesim.studies.interval import half_width

Pays = Literal["yes", "hardly", "no", "not known", "while the load stays"]


@dataclass(frozen=True)
class Paired:
    """Relative gain of one placement over another on the same windows: mean, and its 95 % interval by Student over n
    windows or recordings; low and high are None where there are fewer than two.
    """

    gain: float
    low: float | None
    high: float | None
    count: int

    @classmethod
    def of(cls, base: Sequence[float], value: Sequence[float]) -> Paired:
        """Values of the same windows in the same order; both empty where nothing is known."""
        before, after = np.asarray(base, dtype=np.float64), np.asarray(value, dtype=np.float64)
        if not len(before):
            return cls(0.0, None, None, 0)
        gains = (before - after) / before.mean()
        mean = float(gains.mean())
        if len(gains) < 2:
            return cls(mean, None, None, len(gains))
        reach = half_width(gains)
        return cls(mean, mean - reach, mean + reach, len(gains))

    @property
    def known(self) -> bool:
        """Whether the interval leaves no doubt about the sign."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def words(self) -> str:
        """ "-1.0 to +3.2 % on 8" """
        if self.low is None or self.high is None:
            return f"{self.count} to judge on"
        return f"{self.low:+z.1%} to {self.high:+z.1%} over {self.count}"


@dataclass(frozen=True)
class Ceiling:
    """What is left above the reference placement, as shares of its value: at most; by perfect balance with the recorded
    traffic alone; by no traffic with the recorded balance alone (None where no step was played); taken: what the best
    placement gains.
    """

    reference: str
    most: float
    balance: float
    traffic: float | None
    taken: float

    @property
    def share(self) -> float | None:
        """Taken over what is left at most; None where nothing is left."""
        return self.taken / self.most if self.most > 1e-4 else None

    @property
    def words(self) -> str:
        """One sentence."""
        alone = ""
        if self.traffic is not None:
            alone = f" (perfect balance alone {self.balance:.1%}, no traffic alone {self.traffic:.1%})"
        part = "" if self.share is None else f", {self.share:.0%} of it"
        taken = f"{self.taken:.1%} is taken{part}" if self.taken > 0 else "nothing of it is taken"
        return f"Ceiling: at most {self.most:.1%} is left above {self.reference} here{alone}; {taken}."

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "share": self.share}
