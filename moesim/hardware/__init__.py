"""Hardware: topology files -> sealed Cluster of devices and links, nominal rates with their sources."""

from moesim.hardware.blueprint import Paths, changed
from moesim.hardware.cluster import Cluster, Device, Routes
from moesim.hardware.load import find_topology, known_topologies, load_cluster, refuse_mixed, shipped_device
from moesim.hardware.schema import BETWEEN, INSIDE

__all__ = [
    "BETWEEN", "INSIDE", "Cluster", "Device", "Paths", "Routes", "changed", "find_topology", "known_topologies",
    "load_cluster", "refuse_mixed", "shipped_device",
]  # fmt: skip
