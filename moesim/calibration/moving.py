"""Kernels that only move bytes, of a profile: from its own records where they hold some sizes, else assumed of peak.

Real kernels pass over their bytes more often than a copy does: how often is a constant of all systems (`systems.yaml`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.optimize import least_squares

from moesim.calibration.records import Records
from moesim.calibration.systems import System

SIZES: Final = 4  # different ones from which a launch is told from a rate
OF_PEAK: Final = 0.85  # of the memory's rate that one pass reaches, in the constant of `systems.yaml`


def elementwise(records: Records, system: System) -> dict[str, Any]:
    """The `elementwise` section: launch + bytes / rate."""
    constants, rows = system.constants, _plain(records.of(op="elementwise").usable)
    peak = system.device.memory_bandwidth
    if len(np.unique(rows["bytes"])) < SIZES:
        rate = f"{peak * constants.elementwise_of_peak / 1e9:.5g} GB/s"
        return {
            "launch": "2 us",
            "basis": "assumed",
            "bytes_per_second": rate,
            "source": constants.elementwise_source,
        }
    passes = OF_PEAK / constants.elementwise_of_peak
    launch, reached, off = _fitted(rows, peak)
    told = f"one pass reaches {reached / peak:.2f} of peak (median error {off:.1%}), real kernels make {passes:.2g}"
    return {
        "launch": f"{launch * 1e6:.4g} us", "basis": "fitted", "bytes_per_second": f"{reached / passes / 1e9:.5g} GB/s",
        "source": f"{len(rows)} own records: {told}: {constants.elementwise_source}",
    }  # fmt: skip


def _plain(rows: Records) -> Records:
    """Those out of graphs where there are any: a launch by the host is counted apart."""
    graphed = rows.where(rows["mode"] == "graph")
    return graphed if len(graphed) else rows


def _fitted(rows: Records, peak: float) -> tuple[float, float, float]:
    """Seconds of a launch, B/s of one pass, and the median error, by least squares of the logarithm."""
    size, seconds = rows["bytes"].astype(np.float64), rows["seconds"]

    def off(p: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        return np.log((np.exp(p[0]) + size / np.exp(p[1])) / seconds)

    start = np.log([0.5 * seconds.min(), min((size / seconds).max(), 0.99 * peak)])
    low, high = np.log([1e-9, 1e-4 * peak]), np.log([1e-1, peak])
    found = least_squares(off, np.clip(start, low, high), bounds=(low, high), loss="soft_l1", f_scale=0.1)
    launch, rate = np.exp(found.x)
    return float(launch), float(rate), float(np.median(np.abs(np.expm1(off(found.x)))))
