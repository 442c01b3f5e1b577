"""Is there a steady state, and where does it begin?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BATCH = 5  # MSER-5: means of five
FEWEST = 40  # requests for a judgement
GROWTH = 1.5  # of the last third's mean over the middle third's, beyond which it is no steady state


def transient(values: Floats) -> int:
    """How many of the first values, in order of time, are the transient: MSER-5, at most half of them.

    Source: White, Cobb, Spratt, "A comparison of five steady-state truncation heuristics", WSC 2000.
    """
    means = values[: len(values) // BATCH * BATCH].reshape(-1, BATCH).mean(axis=1)
    if len(means) < 2:
        return 0
    left = np.arange(len(means), 0, -1)
    total, squares = (np.cumsum(one[::-1])[::-1] for one in (means, means**2))
    error = (squares - total**2 / left) / left**2
    return int(np.argmin(error[: len(means) // 2 + 1])) * BATCH


def grows(values: Floats) -> float | None:
    """The last third's mean over the middle third's where it is far above it; None where it is not, or cannot be told.

    Latencies of an overloaded system grow as long as requests come.
    """
    if len(values) < FEWEST:
        return None
    third = len(values) // 3
    middle, last = values[third : 2 * third], values[-third:]
    quarters = [part.mean() for part in np.array_split(values[third:], 4)]
    ratio = float(last.mean() / max(middle.mean(), 1e-12))
    return ratio if ratio > GROWTH and bool(np.all(np.diff(quarters) > 0)) else None
