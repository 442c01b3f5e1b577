"""Validation: points with what was measured and what is predicted, and how far they are apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Point:
    """One measurement. keys: what it is of, coarse to fine, e.g. {"kernel": "normal", "ep": "8", "op": "combine"}.

    rate: the value is a rate whose error is told as one of time; notes: what has to be said of the prediction.
    """

    keys: Mapping[str, str]
    unit: str
    measured: float
    predicted: float
    rate: bool = False
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """predicted / measured - 1; of the time behind a rate, where it is a rate."""
        ratio = self.predicted / self.measured
        return (1 / ratio if self.rate else ratio) - 1.0


@dataclass(frozen=True)
class Validation:
    """Points of a suite; `breakdown_by` names the keys that its errors are broken down by, in each other; held_out:
    value of the first of them -> errors of predictions whose constants were fitted without the point. asked: rows of
    the file, where some may have had no answer. tables: operator and profile -> median and 90th percentile of the
    errors on rows of the profile's own tables that were held out of its fit.
    """

    suite: str
    points: tuple[Point, ...]
    breakdown_by: tuple[str, ...]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    held_out: Mapping[str, Sequence[float]] = field(default_factory=dict)
    asked: int | None = None
    tables: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints; errors are fractions."""
        total = errors(point.error for point in self.points)
        if self.asked is not None:
            total["answered_fraction"] = len(self.points) / self.asked
        rows = [
            {**p.keys, "unit": p.unit, "measured": p.measured, "predicted": p.predicted, "error": p.error}
            for p in self.points
        ]
        return {
            "metrics": {name: {"value": value, "unit": "1"} for name, value in total.items()},
            "breakdown": self.breakdown(),
            "provenance": {"suite": self.suite, **self.provenance, "rows": rows, "tables": self.tables},
            "warnings": list(self.warnings),
        }

    def breakdown(self) -> dict[str, Any]:
        """Errors by the first key, in each by the next, and those of held-out points where there are any."""
        found = _broken_down(self.points, self.breakdown_by)
        for name, held_out in self.held_out.items():
            found[name][f"leave_one_{self.breakdown_by[1]}_out"] = errors(held_out)
        return found


def _broken_down(points: Sequence[Point], keys: Sequence[str]) -> dict[str, Any]:
    if not keys:
        return {}
    return {
        name: errors(point.error for point in some) | _broken_down(some, keys[1:])
        for name, some in _by(points, keys[0]).items()
    }


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
