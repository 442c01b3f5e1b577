"""DispatchRule: which share of an expert's tokens each of its replicas gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows

Floats = npt.NDArray[np.float64]


class DispatchRule(Protocol):
    """One way to spread tokens over replicas."""

    @property
    def name(self) -> str:
        """As in a registry."""

    @property
    def summary(self) -> str:
        """For `moesim list`."""

    @property
    def way(self) -> int:
        """How replicas share while a placement is searched, a constant of `ways.py`; EVEN where batches decide."""

    def shares(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[W or 1, layers, slots]: the share of its expert's load that each slot gets; one row for all windows
        where the rule does not look at the batch. The shares of an expert's slots add up to one."""
