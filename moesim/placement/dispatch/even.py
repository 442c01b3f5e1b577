"""Each replica gets an equal share (EPLB's assumption; vLLM's round-robin dispatch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.layout import Placement
from moesim.placement.dispatch.rule import Floats
from moesim.placement.dispatch.ways import EVEN

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


class Even:
    """One over the number of replicas."""

    name, way = "even", EVEN
    summary = "equal shares of all replicas (EPLB's assumption; vLLM's round robin)"

    def shares(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[1, layers, slots]."""
        replicas = np.take_along_axis(placement.replicas, np.maximum(placement.slot_expert, 0).astype(np.int64), axis=1)
        return np.where(placement.filled, 1.0 / replicas, 0.0)[None]
