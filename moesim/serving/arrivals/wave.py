"""A Poisson process whose rate swings like a day: lowest at the beginning, highest half a period later."""

from __future__ import annotations

from typing import Final

import numpy as np
from pydantic import Field, model_validator

from moesim.serving.arrivals.times import Floats, PositiveRate
from moesim.units import Seconds
from moesim.yamlfile import Section

POINTS: Final = 4096  # of a period, between which the expected number is a line before Newton's steps
NEWTON: Final = 3  # steps, each of which squares what is off


class Wave(Section):
    """A sinusoid from `low` to `high` and back."""

    low: PositiveRate = Field(description="rate at the beginning of every period")
    high: PositiveRate = Field(description="rate half a period later")
    period: Seconds = Field(gt=0, le=1e7, description="from one low to the next, e.g. 24 h")

    @model_validator(mode="after")
    def _in_order(self) -> Wave:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g}/s is above high {self.high:g}/s")
        return self

    def seconds(self, n: int, rng: np.random.Generator) -> Floats:
        """float64[n], ascending: times at which the expected number reaches those of a Poisson process of rate 1."""
        due = np.cumsum(rng.exponential(1.0, n))
        whole, rest = np.divmod(due, self._expected(np.array(self.period)))
        grid = np.linspace(0.0, self.period, POINTS + 1)
        at = np.interp(rest, self._expected(grid), grid)
        for _ in range(NEWTON):
            rate = self._mean - self._swing * np.cos(2 * np.pi * at / self.period)
            at = np.clip(at + (rest - self._expected(at)) / rate, 0.0, self.period)
        return np.maximum.accumulate(whole * self.period + at)

    @property
    def _mean(self) -> float:
        return (self.low + self.high) / 2

    @property
    def _swing(self) -> float:
        return (self.high - self.low) / 2

    def _expected(self, at: Floats) -> Floats:
        """Requests until then: the integral of the rate."""
        turn = 2 * np.pi / self.period
        found: Floats = self._mean * at - self._swing / turn * np.sin(turn * at)
        return found
