"""Validation: points with what was measured and what is predicted, and how far they are apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Point:
    """One measurement. keys: what it is of, coarse to fine, e.g. {"kernel": "normal", "ep": "8", "op": "combine"}."""

    keys: Mapping[str, str]
    unit: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True)
class Validation:
    """Points of a suite; `breakdown_by` names the two keys that its errors are broken down by; held_out: value of the
    first of them -> errors of predictions whose constants were fitted without the point. asked: rows of the file, where
    some may have had no answer.
    """

    suite: str
    points: tuple[Point, ...]
    breakdown_by: tuple[str, str]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    held_out: Mapping[str, Sequence[float]] = field(default_factory=dict)
    asked: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints; errors are fractions."""
        total = errors(point.error for point in self.points)
        if self.asked is not None:
            total["answered_fraction"] = len(self.points) / self.asked
        rows = [{**p.keys, "unit": p.unit, "measured": p.measured, "predicted": p.predicted} for p in self.points]
        return {
            "metrics": {name: {"value": value, "unit": "1"} for name, value in total.items()},
            "breakdown": self.breakdown(),
            "provenance": {"suite": self.suite, **self.provenance, "rows": rows},
            "warnings": list(self.warnings),
        }

    def breakdown(self) -> dict[str, Any]:
        """Errors by the first key, in each by the second, and those of held-out points where there are any."""
        outer, inner = self.breakdown_by
        found: dict[str, Any] = {}
        for name, points in _by(self.points, outer).items():
            found[name] = errors(point.error for point in points)
            if name in self.held_out:
                found[name][f"leave_one_{inner}_out"] = errors(self.held_out[name])
            found[name] |= {value: errors(p.error for p in some) for value, some in _by(points, inner).items()}
        return found


def errors(relative: Iterable[float]) -> dict[str, float]:
    """Relative errors -> mean, median and largest absolute one, the factor by which predictions are off in the
    geometric mean, and their number."""
    every = np.fromiter(relative, dtype=np.float64)
    absolute = np.abs(every)
    return {
        "mean_abs_error": float(absolute.mean()),
        "median_abs_error": float(np.median(absolute)),
        "geometric_mean_ratio": float(np.exp(np.log1p(every).mean())),
        "max_abs_error": float(absolute.max()),
        "points": len(absolute),
    }


def _by(points: Iterable[Point], key: str) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.keys[key], []).append(point)
    return found
