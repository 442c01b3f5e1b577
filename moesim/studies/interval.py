"""95 % intervals: Student's of a mean (few seeds, windows or recordings)."""

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
