"""Balanced compute, operator by operator: how long it takes, what it reaches of the device, and which kernel does it.

An operator is what tasks of one name spend in one error family of costs: "attention: gemm" are its projections,
"attention: attention" its core, "experts: grouped_gemm" the expert FFNs. Rates are sums over all ranks of what the real
rows demand, over the seconds that they take; seconds are those of the rank that computes longest with balanced rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.hardware import Device
from moesim.step import Lowered
from moesim.step.lowered import HOST

REACHED: Final = (
    0.3  # of the nearer roof: below it an operator is bound by neither, but by starting up or by its kernel
)
ROUNDING: Final = 1e-3
LABELS: Final = {
    "attention: gemm": "attention projections", "attention: attention": "attention core",
    "attention: encoder attention": "attention core",
    "attention: recurrence": "linear attention", "attention: sparse attention": "sparse attention",
    "attention: compressed attention": "compressed attention", "attention: block attention": "attention to blocks",
    "attention: hyper-connections": "hyper-connections", "router: hyper-connections": "hyper-connections, experts",
    "attention: unmeasured kernels": "attention, roofline", "attention: elementwise": "attention norms",
    "router: gemm": "router", "router: elementwise": "router scores, norm",
    "experts: grouped_gemm": "experts", "experts: gemm": "experts", "shared: gemm": "shared expert",
    "shared: elementwise": "shared activation", "mlp: gemm": "dense FFN", "mlp: elementwise": "dense activation",
    "head: gemm": "output head", "optimizer: elementwise": "optimizer",
    "optimizer: gemm": "optimizer, matrices made orthogonal",
}  # fmt: skip
Floats = npt.NDArray[np.float64]
Key = tuple[str, str]


@dataclass(frozen=True)
class Operator:
    """seconds: its part of balanced compute. flops_per_s, bytes_per_s: reached by a device; shares of the device's
    peaks (None where it has no such peak); bound: "compute", "memory" or "neither"; kernels: measured ones.
    """

    task: str
    family: str
    seconds: float
    flops_per_s: float
    bytes_per_s: float
    of_peak_flops: float | None
    of_bandwidth: float | None
    bound: str
    kernels: tuple[str, ...]

    @property
    def label(self) -> str:
        """Such as "attention core" or "attention core, backward"."""
        forward, way, _ = self.task.partition("_backward")
        key = f"{forward}: {self.family}"
        return LABELS.get(key, key.replace(": ", " ").replace("_", " ")) + (", backward" if way else "")

    def to_json(self) -> dict[str, Any]:
        """For the provenance of a Result."""
        return {"label": self.label, **asdict(self), "kernels": list(self.kernels)}


def operators(lowered: Lowered, device: Device, ideal: float, draw: Mapping[str, float]) -> list[Operator]:
    """Operators by time, longest first, and a last row for what is no rank's own computing; seconds add up to `ideal`.

    draw: one factor per error family.
    """
    real = _by_rank(lowered, {name: column * draw.get(name, 1.0) for name, column in lowered.work.items()})
    balanced = _by_rank(lowered, lowered.balanced_work(draw))
    total = np.sum([column for (_, family), column in balanced.items() if family != HOST], axis=0)
    fullest = int(np.argmax(total))
    found = [
        _operator(lowered, device, key, float(column[fullest]), real)
        for key, column in balanced.items()
        if key[1] != HOST and column.any()
    ]
    waiting = max(ideal - float(total[fullest]), 0.0)
    rest = Operator("waiting", "for other GPUs", waiting, 0.0, 0.0, None, None, "neither", ())
    return [*sorted(found, key=lambda one: -one.seconds), *([rest] if waiting > 1e-9 * ideal else [])]


def from_cache(found: Sequence[Operator]) -> list[str]:
    """Words about operators whose bytes come faster than the memory gives them."""
    return [
        f"{one.label}: {one.of_bandwidth:.0%} of the memory's bandwidth: {', '.join(one.kernels)} was measured with "
        "its bytes in the last-level cache, where a step of many layers does not find them"
        for one in found
        if one.of_bandwidth is not None and one.of_bandwidth > 1.0 + ROUNDING and one.kernels
    ]


def utilisation(lowered: Lowered, device: Device, step: float) -> tuple[float | None, float]:
    """(MFU, MBU) of a step of so many seconds: FLOPs over what the peak of their arithmetic does in that time, bytes
    over what the memory moves, all ranks together. MFU None where the device has no such peak.
    """
    done = [(one, _roofs(one.dtypes, device)) for one in lowered.demand.values()]
    available = step * len(lowered.sent)
    moved = sum(float(one.bytes.sum()) for one, _ in done) / device.memory_bandwidth
    if any(roof is None and one.flops.any() for one, roof in done):
        return None, moved / available
    return sum(float(one.flops.sum()) / roof for one, roof in done if roof) / available, moved / available


def _by_rank(lowered: Lowered, work: Mapping[str, Floats]) -> dict[Key, Floats]:
    """(task, family) -> seconds float64[ranks]."""
    graph, world = lowered.graph, len(lowered.sent)
    names = sorted(set(graph.name))
    number = {name: index for index, name in enumerate(names)}
    task = np.array([number[name] for name in graph.name], dtype=np.int64)[graph.lane_task]
    cell = task * world + graph.lane_rank
    tables = {
        family: np.bincount(cell, seconds, len(names) * world).reshape(len(names), world)
        for family, seconds in work.items()
    }
    return {(name, family): table[number[name]] for family, table in tables.items() for name in names}


def _operator(lowered: Lowered, device: Device, key: Key, seconds: float, real: Mapping[Key, Floats]) -> Operator:
    demand, spent = lowered.demand[key], max(float(real[key].sum()), 1e-30)
    flops, moved = float(demand.flops.sum()) / spent, float(demand.bytes.sum()) / spent
    roof = _roofs(demand.dtypes, device)
    of_peak, of_bandwidth = (flops / roof if roof else None), moved / device.memory_bandwidth
    reached: Sequence[tuple[float, str]] = ((of_peak or 0.0, "compute"), (of_bandwidth, "memory"))
    most, name = max(reached)
    bound = name if most >= REACHED else "neither"
    return Operator(*key, seconds, flops, moved, of_peak, of_bandwidth, bound, tuple(sorted(demand.kernels)))


def _roofs(dtypes: frozenset[str], device: Device) -> float | None:
    """FLOP/s of the slowest arithmetic among them; None where the device has none of it."""
    peaks = [device.peak_flops.get(dtype) for dtype in dtypes]
    known = [peak for peak in peaks if peak is not None]
    return min(known) if known and len(known) == len(peaks) else None
