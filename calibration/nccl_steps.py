"""Start-ups of NCCL's collectives by message size, from the measured tables of aiconfigurator-core 0.12.0.

    pip install --no-deps aiconfigurator-core==0.12.0 && python calibration/nccl_steps.py h100_sxm 450 0.745

prints the `steps:` of a profile's `nccl` section: what a time has beyond bytes over the rate (GB/s of a GPU's NVLink
per direction, times the efficiency in the profile). Every second size is held out; the errors printed are those of
held-out sizes, of the table and of one straight line through all other sizes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import yaml

from moesim.costs import Steps

Floats = npt.NDArray[np.float64]
VERSION = "2.29.2"
OPS = {"alltoall": "all_to_all", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter"}
PACKAGE = Path(importlib.util.find_spec("aiconfigurator_core").submodule_search_locations[0])  # type: ignore[union-attr,index]


def measured(system: str, op: str, ranks: int) -> tuple[Floats, Floats]:
    """Bytes that a rank sends, seconds; ascending. `message_size` counts elements of the whole buffer."""
    table = pq.read_table(PACKAGE / "systems/data" / system / f"comm/nccl/{VERSION}/nccl_perf.parquet").to_pylist()
    rows = sorted(
        (row["message_size"] * 2 * (ranks - 1) / ranks, row["latency"] / 1e3)
        for row in table
        if (row["op_name"], row["num_gpus"], row["nccl_dtype"]) == (op, ranks, "half")
    )
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def errors(op: str, ranks: int, sent: Floats, seconds: Floats, rate: float) -> tuple[float, float]:
    """Mean absolute error at the held-out sizes: of the table, of a straight line."""
    kept, held = slice(0, None, 2), slice(1, None, 2)
    steps = Steps(op, ranks, tuple(sent[kept]), tuple(seconds[kept] - sent[kept] / rate))
    table = [steps.at(size) + size / rate for size in sent[held]]
    slope, start = np.polyfit(sent[kept], seconds[kept], 1, w=1 / seconds[kept])
    line = start + slope * sent[held]
    return tuple(float(np.mean(np.abs(np.array(found) / seconds[held] - 1))) for found in (table, line))  # type: ignore[return-value]


def main(system: str, nvlink: float, efficiency: float) -> None:
    """Print the section on stdout and the errors on stderr."""
    rate, rows = nvlink * efficiency * 1e9, []
    for op, name in OPS.items():
        for ranks in (2, 4, 8):
            sent, seconds = measured(system, op, ranks)
            if not len(sent):
                continue
            table, line = errors(name, ranks, sent, seconds, rate)
            print(f"{name} over {ranks}: held out {table:.1%}, straight line {line:.1%}", file=sys.stderr)
            alpha = np.maximum(seconds - sent / rate, 0.0)[::2]
            sizes = [f"{round(size)} B" for size in sent[::2]]
            rows.append({"op": name, "ranks": ranks, "bytes": sizes, "alpha": [f"{a * 1e6:.1f} us" for a in alpha]})
    print(yaml.safe_dump({"steps": rows}, sort_keys=False, width=118, default_flow_style=None))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
