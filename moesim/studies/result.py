"""Result: what a run found, with units, where the time went, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.engine import TaskGraph, Timeline
from moesim.hardware import Cluster
from moesim.layout import MemoryLedger


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
    """The step that was played, for pictures: not part of the JSON document.

    expert_load int64[moe layers, experts] rows; sent int64[ranks, ranks] bytes; link columns float64[links].
    """

    cluster: Cluster
    graph: TaskGraph
    timeline: Timeline
    expert_load: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    link_capacity: npt.NDArray[np.float64]
    link_name: tuple[str, ...]
    memory: MemoryLedger


@dataclass(frozen=True)
class Findings:
    """metrics: name -> Metric. breakdown: seconds that add up to a step's or a request's; None where a part was not
    played.
    """

    name: str
    metrics: Mapping[str, Metric]
    breakdown: Mapping[str, float | None]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...]

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
