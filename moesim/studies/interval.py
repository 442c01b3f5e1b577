"""95 % intervals: Student's of a mean (few seeds, windows or recordings), the exact one of a count of rare events."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy

CONFIDENCE: Final = 0.95


def half_width(values: npt.ArrayLike) -> float:
    """values float[n], n >= 2 -> how far the interval of their mean reaches to either side."""
    column = np.asarray(values, dtype=np.float64)
    spreads = float(scipy.special.stdtrit(len(column) - 1, (1 + CONFIDENCE) / 2))
    return spreads * float(column.std(ddof=1)) / math.sqrt(len(column))


def poisson_interval(count: float) -> tuple[float, float]:
    """Expected numbers of events with which `count` is not unlikely: Garwood, "Fiducial limits for the Poisson
    distribution" (1936).
    """
    tail = (1 - CONFIDENCE) / 2
    low = float(scipy.special.gammaincinv(count, tail)) if count else 0.0
    return low, float(scipy.special.gammaincinv(count + 1, 1 - tail))
