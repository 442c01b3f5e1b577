"""The physics check: a record that is faster than its device can be is labelled, and no fit uses it.

The rule, fixed before any fit: a row beats physics if it takes less than the FLOPs of its rows at peak, or less than
the bytes of its active experts' weights and activations at peak memory bandwidth, where those bytes exceed the
last-level cache (what fits may have been there already). Group sizes are those that were recorded, or regenerated
by rule.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from moesim.calibration.demands import KIND, demand_of
from moesim.calibration.fit_operator import Peaks
from moesim.calibration.quality import CELLS, slow_labels
from moesim.calibration.records import OK, Records, join
from moesim.calibration.systems import System
from moesim.costs.shapes import tiles_of

BEATS: Final = "beats physics"
COMMUNICATION: Final = frozenset({"collective", "exchange"})
KERNEL: Final = ("op", "backend", "version", "kernel", "dtype", "cache_dtype", "mode")


def by_kernel(records: Records) -> list[Records]:
    """Records of one operator, kernel and dtypes each, in a fixed order."""
    columns = [records.table[name].combine_chunks().dictionary_encode() for name in KERNEL]
    codes = np.stack([column.indices.to_numpy() for column in columns], axis=1)
    kinds, number = np.unique(codes, axis=0, return_inverse=True)
    return [records.where(number.ravel() == one) for one in range(len(kinds))]


def label(records: Records, system: System) -> Records:
    """The same rows; those that were ok and beat physics, or are slow without reason (see `quality`), are no more."""
    parts = [_labelled(part, system) for part in by_kernel(records)]
    judged = [number for number, part in enumerate(parts) if str(part["op"][0]) in CELLS]
    bounds = [bound(parts[number], system.peaks(str(parts[number]["dtype"][0]))) for number in judged]
    for number, labels in zip(judged, slow_labels([parts[number] for number in judged], bounds), strict=True):
        parts[number] = parts[number].relabelled(list(labels))
    return join(parts)


def _labelled(records: Records, system: System) -> Records:
    kind = KIND.get(str(records["op"][0]))
    if kind is None or kind in COMMUNICATION:
        return records
    peaks = system.peaks(str(records["dtype"][0]))
    fast = records["seconds"] < bound(records, peaks)
    return records.relabelled(
        [BEATS if f and old == OK else old for f, old in zip(fast, records["label"], strict=True)]
    )


def bound(records: Records, peaks: Peaks) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """float64[rows]: seconds that the device needs at least."""
    smallest, *_ = tiles_of(KIND[str(records["op"][0])])
    return peaks.bound(demand_of(records, smallest))
