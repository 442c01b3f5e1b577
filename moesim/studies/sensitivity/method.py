"""A method: where it wants the model played, as shares of each input's range, and what it makes of the answers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Method(Protocol):
    """One file of this folder, and a line in `run.METHODS`."""

    summary: str
    main: str  # the index by which inputs are ranked
    share: bool  # indices are shares of what the answer does, not in its unit

    def shares(self, inputs: int, number: int, seed: int) -> Floats:
        """float64[runs, inputs] in 0 .. 1. Raises BadInput for a number that it cannot use."""

    def indices(self, shares: Floats, values: Floats, seed: int) -> dict[str, Floats]:
        """shares as they were, values float64[runs] -> name of an index -> float64[inputs]."""
