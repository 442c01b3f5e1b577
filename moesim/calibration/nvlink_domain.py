"""Constants of TensorRT-LLM's all-to-all over one NVLink domain, told as NCCL's are: the rate between the largest sizes
of the best table, and what all sizes take beyond their bytes at that rate, by the ranks of the group.

Bytes are a rank's mean under uniform routing, a copy per (token, other GPU).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.calibration.deepep import rows_away, spread_of
from moesim.calibration.heldout import Errors
from moesim.calibration.records import Records, join
from moesim.calibration.systems import System
from moesim.costs.communication import CommunicationCost, Steps
from moesim.hardware import Cluster
from moesim.models import value_bytes

Floats = npt.NDArray[np.float64]
KERNELS: Final = {"nvlink_one_sided": "nvlink_domain", "nvlink_two_sided": "nvlink_domain@two-sided"}
WIDTH: Final = {"bf16": value_bytes("bf16"), "fp8": value_bytes("fp8"), "nvfp4": value_bytes("fp4")}
OCTAVES: Final = 2  # sizes within half an octave of each other are one point of a table


def rows_of(records: Records, kernel: str) -> Records:
    """Dispatch and combine of one of KERNELS."""
    return join([records.of(op=op, kernel=kernel).usable for op in ("dispatch", "combine")])


def in_one_domain(records: Records, system: System, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """kernel -> its section, for kernels that the records hold."""
    found = {}
    nominal = float(np.max(cluster.link_capacity))
    for measured, kernel in KERNELS.items():
        rows = rows_of(records, measured)
        if len(rows):
            found[kernel] = _section(rows, system, nominal)
    return found


def _section(rows: Records, system: System, nominal: float) -> dict[str, Any]:
    rate = best_rate(rows)
    steps, error = tables(rows, rate), np.abs(np.expm1(-held_out(rows).log))
    worlds, p90 = ", ".join(map(str, np.unique(rows["world"]))), float(np.quantile(error, 0.9))
    return {
        "alpha": f"{min(float(one.alpha[0]) for one in steps) * 1e6:.4g} us",
        "efficiency": {"nvlink": round(rate / nominal, 3)}, "sms": 0, "spread": spread_of(p90),
        "steps": [
            {"op": one.op, "ranks": one.ranks, "bytes": [f"{size:.0f} B" for size in one.bytes],
             "alpha": [f"{alpha * 1e6:.4g} us" for alpha in one.alpha]} for one in steps
        ],
        "device": system.device.name, "basis": "fitted",
        "source": (
            f"{rows['backend'][0]} {rows['version'][0]}, {len(rows)} rows of dispatch and combine on {worlds} GPUs "
            f"(aiconfigurator-core 0.12.0, NVIDIA, or own records): {rate / 1e9:.0f} of {nominal / 1e9:.0f} GB/s; each "
            f"number of GPUs left out: median error {np.median(error):.1%}, p90 {p90:.1%}"
        ),
    }  # fmt: skip


def best_rate(rows: Records) -> float:
    """B/s between the largest two sizes of the group that does best."""
    points = [_points(rows, int(world)) for world in np.unique(rows["world"])]
    return max(float((sent[-1] - sent[-2]) / (seconds[-1] - seconds[-2])) for sent, seconds in points)


def tables(rows: Records, rate: float) -> tuple[Steps, ...]:
    """Start-ups of each number of ranks."""
    found = []
    for world in np.unique(rows["world"]):
        sent, seconds = _points(rows, int(world))
        found.append(Steps("all_to_all", int(world), tuple(sent), tuple(np.maximum(seconds - sent / rate, 0.0))))
    return tuple(found)


def held_out(rows: Records) -> Errors:
    """Errors of each number of ranks, predicted from the others."""
    log, fold = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    for number, world in enumerate(np.unique(rows["world"])):
        out = rows["world"] == world
        fold[out] = number
        others = rows.where(~out)
        if not len(others):
            continue
        rate = best_rate(others)
        cost, sent = CommunicationCost(0.0, steps=tables(others, rate)), sent_bytes(rows)[out]
        told = np.array([cost.startup("all_to_all", int(world), int(world) - 1, one) for one in sent]) + sent / rate
        log[out] = np.log(rows["seconds"][out] / told)
    return Errors(log, np.ones(len(rows), dtype=np.bool_), fold, np.arange(len(rows)))


def sent_bytes(rows: Records) -> Floats:
    """float64[rows]: what a rank sends to its peers."""
    away = [rows_away(*key) for key in zip(rows["experts"], rows["topk"], rows["world"], strict=True)]
    width = np.array([WIDTH[str(dtype)] for dtype in rows["dtype"]])
    return np.asarray(rows["tokens"] * np.array(away) * rows["hidden"] * width)


def _points(rows: Records, world: int) -> tuple[Floats, Floats]:
    """Bytes ascending and seconds, the medians of sizes that lie together."""
    own = rows.where(rows["world"] == world)
    sent, seconds = sent_bytes(own), own["seconds"]
    bins = np.rint(np.log2(sent) * OCTAVES)
    kept = np.unique(bins)
    middle = [(np.median(sent[bins == one]), np.median(seconds[bins == one])) for one in kept]
    return np.array([one for one, _ in middle]), np.array([one for _, one in middle])
