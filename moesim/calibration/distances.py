"""How far the distribution of simulated latencies lies from the measured one, and on which side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Transport(NamedTuple):
    """Mean distance that mass moves from the simulated to the measured distribution, over the measured mean: the
    part that was simulated too slow, and the part too fast. Their sum is the Wasserstein-1 distance.
    """

    too_slow: float
    too_fast: float

    @property
    def wasserstein(self) -> float:
        """Both sides."""
        return self.too_slow + self.too_fast


def transport(measured: Floats, simulated: Floats) -> Transport:
    """Equally many seconds of both, float64[n]; in one dimension the best transport pairs them in order."""
    apart = (np.sort(simulated) - np.sort(measured)) / max(float(np.mean(measured)), 1e-300)
    return Transport(float(np.maximum(apart, 0).mean()), float(np.maximum(-apart, 0).mean()))
