"""Paired comparison: both scenarios with the same seeds, the difference with its 95 % interval, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moesim.errors import BadInput
from moesim.studies.interval import CONFIDENCE, half_width
from moesim.studies.load import Named, Overrides, load
from moesim.studies.run import run
from moesim.studies.shown import Rows, Tabular

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """Means of base and variant over the seeds; `value` is the mean paired difference, low .. high its interval."""

    value: float
    unit: str
    base: float
    variant: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison(Tabular):
    """The documents of both over the seeds, and the paired difference of every number that both have."""

    names: tuple[str, str]
    base: tuple[Document, ...]
    variant: tuple[Document, ...]
    metrics: Mapping[str, Difference]
    breakdown: Mapping[str, Difference | None]

    @property
    def relative(self) -> float:
        """Mean difference of the step time over the base's mean step time; negative is faster."""
        step = self.metrics["step_time_s"]
        return step.value / step.base

    def verdict(self) -> str:
        """One sentence."""
        a, b = self.names
        names = f"{b} (with the changes)" if a == b else b
        if not self.metrics["step_time_s"].told:
            return f"No difference between {a} and {names} can be told at 95 % from {len(self.base)} paired seeds."
        how = "faster" if self.relative < 0 else "slower"
        return f"{names} is {how} than {a} by {abs(self.relative):.1%} of its step time, certain at 95 %."

    def rows(self) -> Rows:
        """A row a metric."""
        return [{"name": name, **asdict(one)} for name, one in self.metrics.items()]

    def title(self) -> str:
        """The verdict."""
        return self.verdict()

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints: the values are differences, with both means beside them."""
        warnings = dict.fromkeys(text for one in (*self.base, *self.variant) for text in one["warnings"])
        return {
            "metrics": {name: asdict(one) for name, one in self.metrics.items()},
            "breakdown": {key: one.value if one else None for key, one in self.breakdown.items()},
            "provenance": {
                "verdict": self.verdict(),
                "seeds": len(self.base),
                "confidence": CONFIDENCE,
                "base": self.base[0]["provenance"],
                "variant": self.variant[0]["provenance"],
            },
            "warnings": list(warnings),
        }


def compare(
    base: Named, variant: Named | None = None, seeds: int = 5, *, overrides: Overrides = ()
) -> Comparison:  # fmt: skip
    """Run both with seeds 0 .. seeds - 1; each seed picks the same requests and the same errors for both.

    Each is what `load` takes; `overrides` are the variant's, and without a variant they change the base. The interval
    is Student's over the paired differences. Raises BadInput for fewer than 2 seeds.
    """
    base, variant = load(base), load(base if variant is None else variant, overrides)
    if seeds < 2:
        raise BadInput(f"{seeds} seed(s) give no interval", way_out="--seeds 5")
    first, second = (
        tuple(run(loaded, seed=seed, draw_errors=True, loop=True).to_json() for seed in range(seeds))
        for loaded in (base, variant)
    )
    shared = [name for name in first[0]["metrics"] if name in second[0]["metrics"]]
    return Comparison(
        names=(base.scenario.name, variant.scenario.name),
        base=first,
        variant=second,
        metrics={name: _metric(name, first, second) for name in shared},
        breakdown={key: _rung(key, first, second) for key in first[0]["breakdown"]},
    )


def _metric(name: str, base: Sequence[Document], variant: Sequence[Document]) -> Difference:
    columns = [[one["metrics"][name]["value"] for one in side] for side in (base, variant)]
    return paired(columns[0], columns[1], base[0]["metrics"][name]["unit"])


def _rung(key: str, base: Sequence[Document], variant: Sequence[Document]) -> Difference | None:
    """None where one of them did not play it."""
    columns = [[one["breakdown"].get(key) for one in side] for side in (base, variant)]
    return None if None in (*columns[0], *columns[1]) else paired(columns[0], columns[1], "s")


def paired(base: Sequence[float], variant: Sequence[float], unit: str) -> Difference:
    """Two columns of n >= 2 paired values -> Student's interval of their mean difference."""
    n = len(base)
    differences = np.subtract(variant, base)
    mean = math.fsum(differences) / n
    half = half_width(differences)
    return Difference(mean, unit, math.fsum(base) / n, math.fsum(variant) / n, mean - half, mean + half)
