"""Sentinels: one case measured again and again between the others, so that a device that drifts is noticed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.records import OK, Records

LABEL: Final = "sentinel"
EDGE: Final = {"cpu": 384, "cuda": 4096}  # of the square GEMM


def sentinel(plan: PlanSection) -> Case:
    """A square GEMM in the first of the plan's dtypes that a dense GEMM has."""
    edge = EDGE[plan.device]
    dtype = next((name for name in plan.dtypes if name != "fp8"), "bf16")
    return Case("gemm", "gemm", dtype, shape(m=edge, n=edge, k=edge), label=LABEL)


def in_random_order(cases: Iterable[Case], plan: PlanSection) -> list[Case]:
    """The cases shuffled by the plan's seed, a sentinel before every `sentinel_every` of them and one at the end."""
    listed = list(cases)
    order = streams.stream(plan.seed, "calibration", "order").permutation(len(listed))
    mixed: list[Case] = []
    for place, index in enumerate(order):
        if place % plan.sentinel_every == 0:
            mixed.append(sentinel(plan))
        mixed.append(listed[index])
    return [*mixed, sentinel(plan)]


def without_drift(records: Records, limit: float) -> Records:
    """Usable records whose sentinel before or after is off the sentinels' median by more than `limit` are labelled."""
    moves = _moves(records)
    if not moves:
        return records
    numbers = np.array(sorted(moves))
    move = np.array([moves[number] for number in numbers])
    label, case = records["label"], records["case"]
    worst = _beside(numbers, move, case)
    off = (np.abs(worst) > limit) & (label == OK)
    return records.relabelled(
        [f"drifted: sentinel {w:+.0%}" if bad else str(old) for old, bad, w in zip(label, off, worst, strict=True)]
    )


def drift(records: Records) -> float:
    """The largest move of a sentinel from the median of them, 0 without any."""
    return max((abs(move) for move in _moves(records).values()), default=0.0)


def _moves(records: Records) -> dict[int, float]:
    """case number -> relative move of the sentinel that stands there, the worst of its ranks."""
    marks = records.of(label=LABEL)
    found: dict[int, float] = {}
    for rank in np.unique(marks["rank"]) if len(marks) else ():
        mine = marks["rank"] == rank
        seconds = marks["seconds"][mine]
        for number, move in zip(marks["case"][mine], seconds / np.median(seconds) - 1, strict=True):
            found[int(number)] = max(found.get(int(number), 0.0), float(move), key=abs)
    return found


def _beside(
    numbers: npt.NDArray[np.int64], move: npt.NDArray[np.float64], case: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The larger move of the sentinels before and after each case."""
    before = np.clip(np.searchsorted(numbers, case) - 1, 0, len(numbers) - 1)
    after = np.clip(np.searchsorted(numbers, case), 0, len(numbers) - 1)
    found: npt.NDArray[np.float64] = np.where(np.abs(move[before]) > np.abs(move[after]), move[before], move[after])
    return found
