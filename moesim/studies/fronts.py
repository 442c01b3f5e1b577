"""Fronts of several goals: who is beaten by nobody, and how good a set of answers is as a whole.

All goals are maximised here; a goal that is minimised comes in with its sign changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Floats = npt.NDArray[np.float64]
SIGNS: Final = {"max": 1.0, "min": -1.0}
WEIGHTS: Final = 101  # of R2, along each pair of goals


class Goal(NamedTuple):
    """A metric, and whether more of it is better (1) or less (-1)."""

    metric: str
    sign: float


class Quality(NamedTuple):
    """front: row numbers, by the first goal. hypervolume: share of the box from the worst to the best of each goal that
    the front dominates; r2: mean over weights of how far the best answer stays from the best of all (0: reaches it).
    """

    front: tuple[int, ...]
    hypervolume: float
    r2: float


def read_goals(text: str) -> tuple[Goal, ...]:
    """ "a:max,b:min" -> goals. Raises BadInput."""
    found = []
    for part in text.split(","):
        metric, _, way = part.strip().partition(":")
        if not metric or (way or "max") not in SIGNS:
            raise BadInput(f"{part.strip()!r} is no goal", where="--front", way_out="step_time_s:min,mfu:max")
        found.append(Goal(metric, SIGNS[way or "max"]))
    if len({goal.metric for goal in found}) < len(found):
        raise BadInput("names a metric twice", where="--front", way_out="each once, METRIC:max or METRIC:min")
    return tuple(found)


def quality(values: Floats, box: Floats | None = None) -> Quality:
    """values float64[n, goals], box float64[m, goals] all answers there are (None: `values`) -> its front."""
    every = values if box is None else box
    low, high = every.min(axis=0), every.max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    front = np.flatnonzero(undominated(values))
    front = front[np.argsort(-values[front, 0], kind="stable")]
    return Quality(tuple(map(int, front)), hypervolume(scaled[front]), r2(scaled[front]))


def undominated(values: Floats) -> npt.NDArray[np.bool_]:
    """values float64[n, goals] -> bool[n]: no other is at least as good in all goals and better in one; of equal
    answers the first stays.
    """
    keep = np.ones(len(values), dtype=np.bool_)
    for row in range(len(values)):
        no_worse = (values >= values[row]).all(axis=1)
        better = no_worse & (values > values[row]).any(axis=1)
        keep[row] = not better.any() and not no_worse[:row].any()
    return keep


def hypervolume(points: Floats) -> float:
    """points float64[n, goals] -> volume of what they dominate above 0. Slices along the last goal (While, Hingston,
    Barone, Huband, IEEE Trans. Evolutionary Computation 10, 2006, call it HSO).
    """
    points = points[(points > 0).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    heights = np.unique(points[:, -1])
    thickness = np.diff(heights, prepend=0.0)
    return float(sum(d * hypervolume(points[points[:, -1] >= z, :-1]) for z, d in zip(heights, thickness, strict=True)))


def r2(points: Floats) -> float:
    """points float64[n, goals] in 0 .. 1 -> mean over weights of the least weighted Chebyshev distance to (1, 1 ...).

    Source: Hansen, Jaszkiewicz, IMM-REP-1998-7; weights even along each pair of goals.
    """
    goals = points.shape[1]
    if goals == 1:
        return float(1 - points.max())
    share = np.linspace(0, 1, WEIGHTS)
    weights = np.zeros((WEIGHTS * (goals - 1), goals))
    for first in range(goals - 1):
        rows = slice(first * WEIGHTS, (first + 1) * WEIGHTS)
        weights[rows, first], weights[rows, first + 1] = share, 1 - share
    far = (weights[:, None, :] * (1 - points)[None, :, :]).max(axis=2)
    return float(far.min(axis=1).mean())


def as_goals(columns: Sequence[Sequence[float]], goals: Sequence[Goal]) -> Floats:
    """A column a goal -> float64[n, goals], all to be maximised."""
    return np.column_stack(
        [np.asarray(c, dtype=np.float64) * goal.sign for c, goal in zip(columns, goals, strict=True)]
    )
