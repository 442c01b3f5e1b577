"""A linear program for each batch (deepseek-ai/LPLB): tokens of replicated experts go where the batch needs them.

LPLB restricts flow to the edges of a graph of redundant experts; here every replica may take any share, which is the
least that any such graph can reach with the same placement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.layout import Placement
from moesim.placement.dispatch.flow import best_shares
from moesim.placement.dispatch.rule import Floats
from moesim.placement.dispatch.ways import EVEN

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


class PerBatchLP:
    """The best shares of every window."""

    name, way = "lplb", EVEN
    summary = "a linear program for each batch (deepseek-ai/LPLB)"

    def shares(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[W, layers, slots]."""
        result = np.empty((windows.num_windows, placement.num_layers, placement.num_slots))
        for window, counts in enumerate(windows.counts.astype(np.float64)):
            for layer, load in enumerate(counts):
                where = placement.slot_expert[layer], placement.slot_rank[layer]
                result[window, layer] = best_shares(load, *where, problem.speed)
        return result
