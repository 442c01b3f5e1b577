"""95 % intervals: Student's of a mean (few seeds, windows or recordings), Clopper and Pearson's of a chance (1934)."""

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


def most_likely(seen: int, trials: int) -> float:
    """The upper end of the interval of a chance that was seen in some of the trials, not in all."""
    return float(scipy.special.betaincinv(seen + 1, trials - seen, (1 + CONFIDENCE) / 2))
