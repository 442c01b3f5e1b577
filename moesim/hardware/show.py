"""`moesim topo show`: a Cluster as text."""

from __future__ import annotations

import numpy as np

from moesim.hardware.cluster import Cluster, Device
from moesim.units import show_bandwidth, show_bytes, show_seconds


def show(cluster: Cluster) -> str:
    """Devices, kinds of links with their rates and sources, one route of each shape, warnings."""
    size = f"{cluster.num_nodes} nodes, {cluster.num_devices} GPUs, {cluster.num_links} directed links"
    parts = [f"{cluster.name}: {size}, oversubscription {cluster.oversubscription:g}:1"]
    parts += [f"kinds: {cluster.kinds}"] if cluster.kinds else []
    parts += [_device(device) for device in cluster.devices]
    parts += [_links(cluster), _routes(cluster)]
    parts += [f"warning: {warning}" for warning in cluster.warnings]
    return "\n".join(parts)


def _device(device: Device) -> str:
    rows = [
        ("memory", show_bytes(device.memory_bytes), device.sources.get("memory", "")),
        ("memory rate", show_bandwidth(device.memory_bandwidth), device.sources.get("memory_bandwidth", "")),
        ("SMs", str(device.sms), device.sources.get("sms", "")),
        *([("cache", show_bytes(device.cache_bytes), device.sources["cache"])] if device.cache_bytes else []),
        *([("host link", show_bandwidth(device.host_link), device.sources["host_link"])] if device.host_link else []),
        *(
            (f"dense {dtype}", f"{rate / 1e12:g} TFLOP/s", device.sources.get(f"flops.{dtype}", ""))
            for dtype, rate in device.peak_flops.items()
        ),
    ]
    return _table(f"device {device.name}", rows)


def _links(cluster: Cluster) -> str:
    kinds = np.array(cluster.link_kind)
    rows = []
    for kind in dict.fromkeys(cluster.link_kind):
        mine = np.flatnonzero(kinds == kind)
        latency = float(cluster.link_latency[mine].max())
        rate = f"{len(mine)} x {_range(cluster.link_capacity[mine])}"
        rows.append((kind, f"{rate}, {show_seconds(latency)}" if latency else rate, cluster.link_source[mine[0]]))
    return _table("links (per direction)", rows)


def _range(rates: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    low, high = show_bandwidth(float(rates.min())), show_bandwidth(float(rates.max()))
    return low if low == high else f"{low} to {high}"


def _routes(cluster: Cluster) -> str:
    """From GPU 0 to the first GPU of each different sequence of link kinds."""
    seen: dict[tuple[str, ...], int] = {}
    for other in range(1, cluster.num_devices):
        links = cluster.path[0, other]
        seen.setdefault(tuple(cluster.link_kind[link] for link in links[links >= 0]), other)
    rows = [(f"gpu0 to gpu{other}", ", ".join(kinds) or "no route", "") for kinds, other in seen.items()]
    return _table("routes", rows)


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    names, values = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    lines = [f"  {name:<{names}}  {value:<{values}}  {source}".rstrip() for name, value, source in rows]
    return "\n".join([title, *lines])
