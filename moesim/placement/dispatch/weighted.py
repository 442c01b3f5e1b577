"""Fixed weights of the replicas, planned on the load that the placement was planned on: a linear program a layer.

It is what an engine does that draws a replica from a table of weights; the table is only as good as the forecast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.layout import Placement
from moesim.placement.dispatch.flow import best_shares
from moesim.placement.dispatch.rule import Floats

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


class Weighted:
    """The best weights for the problem's own windows, all together."""

    name = "weighted"

    def shares(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[1, layers, slots]."""
        load = problem.load.astype(np.float64)
        rows = zip(load, placement.slot_expert, placement.slot_rank, strict=True)
        return np.stack([best_shares(row, expert, rank, problem.speed) for row, expert, rank in rows])[None]
