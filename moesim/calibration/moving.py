"""Kernels that only move bytes, of a profile: from its own records where they hold some sizes, else assumed of peak.

Real kernels pass over their bytes more often than a copy does: how often is a constant of all systems (`systems.yaml`).
The activation between the GEMMs of experts is one kernel, timed as such: one pass. Rows of several kernels (backend,
dtype, mode) are no one line: that of the most sizes counts, of these the fastest.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.optimize import least_squares

from moesim.calibration.physics import by_kernel
from moesim.calibration.records import Records
from moesim.calibration.systems import System

SIZES: Final = 4  # different ones from which a launch is told from a rate
FASTEST: Final = 1e12  # B/s: no link of a host is
OF_PEAK: Final = 0.85  # of the memory's rate that one pass reaches, in the constant of `systems.yaml`


def elementwise(records: Records, system: System) -> dict[str, Any]:
    """The `elementwise` section: launch + bytes / rate."""
    constants, rows = system.constants, _one_kernel(records.of(op="elementwise").usable)
    peak = system.device.memory_bandwidth
    if rows is None:
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


def activation(records: Records, system: System) -> dict[str, Any] | None:
    """The `activation` section, of the fused kernel; None where the records do not tell."""
    rows, peak = _one_kernel(records.of(op="activation").usable), system.device.memory_bandwidth
    if rows is None:
        return None
    launch, reached, off = _fitted(rows, peak)
    told = f"{rows['kernel'][0]} reaches {reached / peak:.2f} of peak (median error {off:.1%})"
    return {"launch": f"{launch * 1e6:.4g} us", "basis": "fitted", "bytes_per_second": f"{reached / 1e9:.5g} GB/s",
            "source": f"{len(rows)} own records: {told}"}  # fmt: skip


def copies(records: Records) -> list[str]:
    """What is said of copies between host and device, which a step charges at their link's rate."""
    told = []
    for op in ("copy_h2d", "copy_d2h"):
        own = records.of(op=op).usable
        for kernel in sorted(set(own["kernel"].astype(str))):
            rows = _one_kernel(own.of(kernel=kernel))
            if rows is not None:
                launch, reached, _ = _fitted(rows, FASTEST)
                told.append(
                    f"{op}/{kernel}: {reached / 1e9:.1f} GB/s after {launch * 1e6:.1f} us; steps take its link's"
                )
    return told


def _one_kernel(rows: Records) -> Records | None:
    """Of kernels with enough sizes those out of graphs where there are any, as a launch by the host is counted apart;
    of these the one with the most sizes, then the fastest; None without any.
    """
    parts = [part for part in by_kernel(rows) if len(np.unique(part["bytes"])) >= SIZES] if len(rows) else []
    graphed = [part for part in parts if part["mode"][0] == "graph"]
    return max(graphed or parts, key=lambda part: (len(np.unique(part["bytes"])), -_each(part)), default=None)


def _each(rows: Records) -> float:
    """Seconds of a byte, the median."""
    return float(np.median(rows["seconds"] / rows["bytes"]))


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
