"""One after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def choose(loads: Sequence[int], number: int, rng: np.random.Generator) -> int:
    """The replica of request `number`."""
    return number % len(loads)
