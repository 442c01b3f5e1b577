"""Paired comparison: both scenarios with the same seeds, the difference with its 95 % interval, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from moesim.errors import BadInput
from moesim.studies.load import Loaded
from moesim.studies.result import Result
from moesim.studies.run import run

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Step times of both over the seeds, in seconds, and the mean paired difference with its interval."""

    base: tuple[Result, ...]
    variant: tuple[Result, ...]
    difference_s: float
    low_s: float
    high_s: float

    @property
    def relative(self) -> float:
        """Mean difference over the base's mean step time; negative is faster."""
        return self.difference_s / float(np.mean(step_times(self.base)))

    def verdict(self) -> str:
        """One sentence."""
        a, b = self.base[0].name, self.variant[0].name
        names = f"{b} (with the changes)" if a == b else b
        if self.low_s <= 0 <= self.high_s:
            return f"No difference between {a} and {names} can be told at 95 % from {len(self.base)} paired seeds."
        how = "faster" if self.difference_s < 0 else "slower"
        return f"{names} is {how} than {a} by {abs(self.relative):.1%} of its step time, certain at 95 %."


def step_times(results: Sequence[Result]) -> list[float]:
    """Seconds."""
    return [result.metrics["step_time_s"].value for result in results]


def compare(base: Loaded, variant: Loaded, seeds: int = 5) -> Comparison:
    """Run both with seeds 0 .. seeds - 1; each seed picks the same requests and the same errors for both.

    The interval is Student's over the paired differences. Raises BadInput for fewer than 2 seeds.
    """
    if seeds < 2:
        raise BadInput(f"{seeds} seed(s) give no interval", way_out="--seeds 5")
    results = [tuple(run(loaded, seed=seed, draw_errors=True) for seed in range(seeds)) for loaded in (base, variant)]
    differences = np.subtract(step_times(results[1]), step_times(results[0]))
    mean, spread = math.fsum(differences) / seeds, float(np.std(differences, ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1)) * spread / math.sqrt(seeds)
    return Comparison(results[0], results[1], mean, mean - half, mean + half)
