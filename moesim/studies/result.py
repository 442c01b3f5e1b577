"""Result: what a run found, with units, where the time went, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.engine import TaskGraph, Timeline
from moesim.hardware import Cluster
from moesim.layout import MemoryLedger
from moesim.step import StepPlan
from moesim.step.work import Demand
from moesim.studies.shown import Rows, Tabular


@dataclass(frozen=True)
class Metric:
    """A number and its unit ("1" for a ratio); low .. high is the 80 % band of a step, the 95 % interval of a mean over
    seeds, where one is known.
    """

    value: float
    unit: str
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """value and unit, and the band where there is one."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Played:
    """The step that was played, for pictures and laws: not part of the JSON document.

    expert_load int64[moe layers, experts] rows; sent int64[ranks, ranks] bytes; link columns float64[links]; demand:
    (name of tasks, family) -> what they had to do on each rank.
    """

    cluster: Cluster
    graph: TaskGraph
    timeline: Timeline
    expert_load: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    link_capacity: npt.NDArray[np.float64]
    link_name: tuple[str, ...]
    memory: MemoryLedger
    plan: StepPlan
    phase: str
    demand: Mapping[tuple[str, str], Demand]


@dataclass(frozen=True)
class Findings(Tabular):
    """metrics: name -> Metric. breakdown: seconds that add up to a step's or a request's; None where a part was not
    played.
    """

    name: str
    metrics: Mapping[str, Metric]
    breakdown: Mapping[str, float | None]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...]

    def rows(self) -> Rows:
        """Metrics, then the parts of the breakdown in seconds; a part that was not played is None."""
        parts = {f"breakdown.{key}": Metric(value, "s") for key, value in self.breakdown.items() if value is not None}
        found = [
            {"name": name, "value": one.value, "unit": one.unit, "low": one.low, "high": one.high}
            for name, one in {**self.metrics, **parts}.items()
        ]
        empty = [key for key, value in self.breakdown.items() if value is None]
        return [*found, *({"name": f"breakdown.{key}", "value": None, "unit": "s", "low": None, "high": None}
                          for key in empty)]  # fmt: skip

    def title(self) -> str:
        """Its name."""
        return self.name

    def said_with(self) -> Sequence[str]:
        """The warnings."""
        return self.warnings

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "breakdown": dict(self.breakdown),
            "provenance": dict(self.provenance),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Result(Findings):
    """Of a step, and the step."""

    played: Played = field(compare=False, repr=False)

    @property
    def operators(self) -> Rows:
        """Seconds of each operator within balanced compute, its demands, what it reaches and what binds it."""
        found: Rows = self.provenance.get("operators", [])
        return found

    @property
    def memory(self) -> Rows:
        """Bytes that the fullest device holds, row by row."""
        return [{"pool": row.pool, "item": row.item, "bytes": row.bytes} for row in self.played.memory.rows]
