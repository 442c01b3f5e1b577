"""Fixed weights of the replicas, planned on the windows that the placement was planned on: a linear program a layer
for the least expected peak over them. Equal weights are among them, so they are never better there.

It is what an engine does that draws a replica from a table of weights; the table is only as good as the forecast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.layout import Placement
from moesim.placement.dispatch.flow import fixed_shares
from moesim.placement.dispatch.rule import Floats
from moesim.placement.dispatch.ways import EVEN

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


class Weighted:
    """The best weights for the problem's own windows, each as much as another."""

    name, way = "weighted", EVEN
    summary = "fixed weights, planned for the least expected peak over the windows"

    def shares(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[1, layers, slots]."""
        counts = problem.train.counts.astype(np.float64)
        rows = zip(counts.transpose(1, 0, 2), placement.slot_expert, placement.slot_rank, strict=True)
        return np.stack([fixed_shares(load, expert, rank, problem.speed) for load, expert, rank in rows])[None]
