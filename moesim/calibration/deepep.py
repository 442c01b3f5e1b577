"""Constants of DeepEP's kernels on the device of some records.

One node:      t = alpha + bytes over NVLink / min(share x nominal, SMs x rate of an SM)
Several nodes: the same with the slower of NIC and NVLink; its wires' shares are those of the published tables of H800
(`calibration/fit_deepep.py`), the rate of an SM is that of records of two nodes.

Bytes are a rank's mean under uniform routing: a copy per (token, device) from the normal kernels, per (token, expert)
from the low-latency ones, which hold no SMs that could limit them.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from moesim.calibration.records import Records, join
from moesim.calibration.systems import System
from moesim.hardware import Cluster
from moesim.models import value_bytes

Floats = npt.NDArray[np.float64]
KERNELS: Final = {"deepep_normal": "deepep_intranode", "deepep_low_latency": "deepep_low_latency_intranode"}
NODE: Final = 8  # GPUs of a node in the imported tables
HEADER: Final = 16  # bytes beside a dispatched row of the low-latency kernels
FP8: Final = value_bytes("fp8")
FEWEST: Final = 20  # rows that three constants can be fitted to
P90: Final = 1.645  # standard deviations of a normal, within which nine of ten lie


def in_one_node(
    records: Records, system: System, cluster: Cluster, plain: dict[str, Any]
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """kernel -> its section, for kernels that the records hold on one node."""
    found = {}
    for measured, kernel in KERNELS.items():
        rows = exchanges(records, measured, NODE)
        if rows is None or len(rows) < FEWEST:
            continue
        nominal = float(np.max(cluster.link_capacity))
        alpha, share, sm_rate = fit(rows, nominal)
        error = np.abs(predicted(rows, nominal, alpha, share, sm_rate) / rows["seconds"] - 1)
        sms = plain[measured]["sms"]
        found[kernel] = {
            "alpha": f"{alpha * 1e6:.3g} us", "efficiency": plain[measured]["efficiency"] | {"nvlink": round(share, 4)},
            "sms": sms, "spread": spread_of(float(np.quantile(error, 0.9))), "device": system.device.name,
            "basis": "fitted",
            "source": (
                f"{len(rows)} rows of one node of {NODE} GPUs (aiconfigurator-core 0.12.0, NVIDIA, or own records): "
                f"median error {np.median(error):.1%}, p90 {np.quantile(error, 0.9):.1%}"
            ),
        }  # fmt: skip
        if sms:
            found[kernel]["sm_rate"] = f"{sm_rate / 1e9:.4g} GB/s"
    return found


def spread_of(p90: float) -> float:
    """Standard deviation of the logarithm, of relative errors of which nine of ten are within p90."""
    return float(f"{math.log1p(p90) / P90:.3g}")


def exchanges(records: Records, kernel: str, world: int) -> Records | None:
    """Dispatch and combine of one kernel over `world` ranks; None where there is neither."""
    parts = [records.of(op=op, kernel=kernel).usable for op in ("dispatch", "combine")]
    kept = [part.where((part["world"] == world) & _uniform(part)) for part in parts if len(part)]
    return join(kept) if any(map(len, kept)) else None


def _uniform(rows: Records) -> npt.NDArray[np.bool_]:
    """bool[rows]: as the formula of their bytes has it; skewed ones tell what a rank waits for, not what links do."""
    return np.isin(rows["distribution"].astype(str), ["", "balanced"])


def fit(rows: Records, nominal: float) -> tuple[float, float, float]:
    """(alpha s, share of NVLink, B/s of an SM), by least squares of the logarithm."""

    def residuals(x: Floats) -> Floats:
        return np.asarray(np.log(predicted(rows, nominal, x[0] * 1e-5, x[1], x[2] * 1e9) / rows["seconds"]))

    low = str(rows["kernel"][0]).endswith("low_latency")
    start = (1.0, 0.6, 1e3 if low else 15.0)
    found = least_squares(residuals, start, bounds=((0.0, 0.05, 1.0), (20.0, 1.0, 2e3)), loss="soft_l1", f_scale=0.1)
    return float(found.x[0]) * 1e-5, float(found.x[1]), float(found.x[2]) * 1e9


def predicted(rows: Records, nominal: float, alpha: float, share: float, sm_rate: float) -> Floats:
    """float64[rows] seconds in one node; kernels without SMs of their own are not limited by them."""
    rate = np.where(rows["sms"] > 0, np.minimum(share * nominal, rows["sms"] * sm_rate), share * nominal)
    return np.asarray(alpha + nvlink_bytes(rows) / rate)


def nvlink_bytes(rows: Records) -> Floats:
    """float64[rows]: bytes that a rank of one node sends to its peers."""
    value = np.where(rows["dtype"] == "fp8", FP8, 2.0)  # bytes
    away = (rows["world"] - 1) / rows["world"]
    if str(rows["kernel"][0]).endswith("low_latency"):
        row = rows["hidden"] * value + np.where(rows["op"] == "dispatch", HEADER, 0)
        return np.asarray(rows["tokens"] * rows["topk"] * away * row)
    reached = [rows_away(*key) for key in zip(rows["experts"], rows["topk"], rows["world"], strict=True)]
    return np.asarray(rows["tokens"] * np.array(reached) * value * rows["hidden"])


def rows_away(experts: int, topk: int, devices: int) -> float:
    """Other devices that hold any of the topk experts of a token: (D - 1) (1 - C(E - E/D, k) / C(E, k))."""
    own = experts // devices
    missed = math.prod(max(experts - own - drawn, 0) / (experts - drawn) for drawn in range(min(topk, experts)))
    return (devices - 1) * (1 - missed)
