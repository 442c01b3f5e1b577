"""Constants of DeepEP's kernels, fitted to rows of its tables by least squares of the logarithm.

Normal kernels have two, beside a start-up that is measured on H100: the NVLink rate that the one-hop kernel reaches
inside a node, and what the two-hop pipeline between nodes keeps of every rate. A NIC's own rate is not fitted: it is
InfiniBand's, without the headers of 4096-byte packets. Low-latency kernels have three: start-up, NVLink and NIC. No
rate may exceed what the wire is known to carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from moesim.costs import CommunicationCost
from moesim.studies.validation.deepep_table import Row

START = 38e-6  # one token on one and two nodes of H100: 26 us in dispatch, 50 in combine (aiconfigurator-core 0.12.0)
Costs = dict[str, CommunicationCost]
NVLINK = 0.8  # 160 of 200 GB/s, the most that the README of DeepEP sees on H800
WIRE = 0.99  # 4096 of 4096 + 30 to 42 bytes (local, transport and RDMA headers, checksums): InfiniBand specification


def normal(parameters: npt.NDArray[np.float64]) -> Costs:
    """(NVLink of one hop, share that the pipeline keeps) -> constants."""
    nvlink, pipeline = parameters
    return {
        "deepep_intranode": CommunicationCost(START, {"nvlink": nvlink, "nic": WIRE}),
        "deepep_normal": CommunicationCost(START, {"nvlink": nvlink * pipeline, "nic": WIRE * pipeline}),
    }


def low_latency(parameters: npt.NDArray[np.float64]) -> Costs:
    """(start-up in units of 100 us, NVLink, NIC) -> constants."""
    alpha, nvlink, nic = parameters
    return {"deepep_low_latency": CommunicationCost(alpha * 1e-4, {"nvlink": nvlink, "nic": nic})}


Parameters = tuple[float, ...]
FORMS: Mapping[str, tuple[Callable[[npt.NDArray[np.float64]], Costs], Parameters, Parameters]] = {
    "normal": (normal, (0.7, 0.9), (NVLINK, 1.0)),
    "low_latency": (low_latency, (0.3, 0.99 * NVLINK, 0.9), (1.0, NVLINK, WIRE)),
}


def fit(kernel: str, rows: Sequence[Row]) -> Costs:
    """Constants of `kernel`, for rows of one version. The same rows give the same constants."""
    form, start, most = FORMS[kernel]

    def residuals(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        costs = form(parameters)
        return np.array([np.log(row.situation.seconds(costs) / row.seconds) for row in rows])

    return form(least_squares(residuals, start, bounds=(0.0, most), diff_step=[1e-4], xtol=1e-4).x)


def held_out_errors(kernel: str, rows: Sequence[Row]) -> list[float]:
    """Relative error of each row, with constants fitted to the rows of all other EP sizes."""
    found = []
    for ranks in sorted({row.situation.case.ranks for row in rows}):
        rest = [row for row in rows if row.situation.case.ranks != ranks]
        costs = fit(kernel, rest)
        mine = [row for row in rows if row.situation.case.ranks == ranks]
        found += [row.situation.seconds(costs) / row.seconds - 1.0 for row in mine]
    return found
