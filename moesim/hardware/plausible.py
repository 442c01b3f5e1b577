"""Figures that are legal but that no machine of 2026 has: a warning, since a slip of b for B is the usual cause."""

from __future__ import annotations

from collections.abc import Sequence

from moesim.hardware.blueprint import Link
from moesim.hardware.cluster import Device
from moesim.hardware.schema import BETWEEN
from moesim.units import show_bandwidth, show_bytes

SLOWEST_LINK = 1e8  # 0.8 Gb/s
FASTEST_PORT = 2.5e11  # 2 Tb/s out of a node through one port; 0.8 Tb/s is the fastest on sale
FASTEST_LINK = 1e14  # 100 TB/s; an NVLink 5 port has 0.9 TB/s, pooled spine uplinks stay below this
LARGEST_MEMORY = 2e12
FASTEST_MEMORY = 1e14
FASTEST_FLOPS = 1e18


def of_links(links: Sequence[Link]) -> tuple[str, ...]:
    """One sentence for each implausible rate, naming the first link that has it."""
    first: dict[tuple[str, float], Link] = {}
    for link in links:
        first.setdefault((link.kind, link.capacity), link)
    return tuple(
        f"link {link.name}: {show_bandwidth(rate)} is implausible{_hint(kind)}"
        for (kind, rate), link in first.items()
        if not SLOWEST_LINK <= rate <= (FASTEST_PORT if _leaves_node(kind) else FASTEST_LINK)
    )


def of_device(device: Device) -> tuple[str, ...]:
    """The same for a device's own figures."""
    found = []
    if device.memory_bytes > LARGEST_MEMORY:
        found.append(f"device {device.name}: {show_bytes(device.memory_bytes)} of memory is implausible")
    if device.memory_bandwidth > FASTEST_MEMORY:
        found.append(f"device {device.name}: {show_bandwidth(device.memory_bandwidth)} of memory is implausible")
    fast = {dtype: rate for dtype, rate in device.peak_flops.items() if rate > FASTEST_FLOPS}
    found += [f"device {device.name}: {rate:.3g} FLOP/s in {dtype} is implausible" for dtype, rate in fast.items()]
    return tuple(found)


def _leaves_node(kind: str) -> bool:
    return kind.rsplit("_", 1)[0] in BETWEEN


def _hint(kind: str) -> str:
    return " for one port; Gb/s or GB/s?" if _leaves_node(kind) else ""
