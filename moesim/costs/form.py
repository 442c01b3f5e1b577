"""The analytic form of one operator, and the hull of what it was fitted on.

t = t0 + ((flops / (ef F))^p + (bytes / (eb B))^p)^(1/p): a launch time, and compute and memory time joined by a p-norm
that overlaps them as far as the measurements say. F and B are the device's peaks, ef and eb what is reached of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.costs.shapes import Demand

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """Parameters of one operator and dtype; hull: least and largest FLOPs and bytes that were measured."""

    launch: float
    flops_per_second: float
    bytes_per_second: float
    norm: float
    flops_hull: tuple[float, float]
    bytes_hull: tuple[float, float]

    def seconds(self, demand: Demand) -> Floats:
        """float64[...] seconds; nothing to do takes no time."""
        compute, memory = demand.flops / self.flops_per_second, demand.bytes / self.bytes_per_second
        larger = np.maximum(np.maximum(compute, memory), 1e-15)
        joined = larger * ((compute / larger) ** self.norm + (memory / larger) ** self.norm) ** (1 / self.norm)
        found: Floats = np.where(demand.bytes > 0, self.launch + joined, 0.0)
        return found

    def outside(self, demand: Demand) -> npt.NDArray[np.bool_]:
        """bool[...]: work to do that is smaller or larger than anything measured."""
        beyond = _beyond(demand.flops, self.flops_hull) | _beyond(demand.bytes, self.bytes_hull)
        return np.asarray(beyond & (demand.bytes > 0), dtype=np.bool_)


def _beyond(values: Floats, hull: tuple[float, float]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (values < hull[0] * 0.999) | (values > hull[1] * 1.001)
    return found
