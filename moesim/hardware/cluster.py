"""Cluster: frozen devices and links in canonical order, and the answer to "which links lie between a and b"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

NO_LINK = -1


@dataclass(frozen=True)
class Device:
    """One kind of GPU. peak_flops: dense FLOP/s by dtype; each figure's source stands in `sources`."""

    name: str
    memory_bytes: int
    memory_bandwidth: float
    peak_flops: Mapping[str, float]
    sms: int
    sources: Mapping[str, str] = field(default_factory=dict)


class Routes(NamedTuple):
    """CSR: route f uses links `link[ptr[f]:ptr[f + 1]]`."""

    ptr: npt.NDArray[np.int64]
    link: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Cluster:
    """Devices 0..D-1 and directed links 0..L-1.

    node_of, rail_of int32[D]; link_capacity float64[L] B/s nominal; link_latency float64[L] s;
    path int32[D, D, hops]: the links from one device to another in order, -1 padded; all -1 where there is no route.
    more_paths: the same for the second and further queue pairs of a fabric that hashes them (ECMP); a message is
    divided evenly over all of them. link_ends: the two names that each link joins, for pictures and exports. collides:
    flows may meet away from the GPUs' own links at any oversubscription (ECMP, listed links, ports behind PCIe).
    reduces_in_switch: the switch inside a node adds up and copies (NVLS).
    """

    name: str
    devices: tuple[Device, ...]
    node_of: npt.NDArray[np.int32]
    rail_of: npt.NDArray[np.int32]
    link_name: tuple[str, ...]
    link_kind: tuple[str, ...]
    link_capacity: npt.NDArray[np.float64]
    link_latency: npt.NDArray[np.float64]
    link_source: tuple[str, ...]
    path: npt.NDArray[np.int32]
    oversubscription: float = 1.0
    warnings: tuple[str, ...] = ()
    more_paths: tuple[npt.NDArray[np.int32], ...] = ()
    link_ends: tuple[tuple[str, str], ...] = ()
    collides: bool = False
    reduces_in_switch: bool = False

    @property
    def num_devices(self) -> int:
        """D."""
        return len(self.node_of)

    @property
    def num_links(self) -> int:
        """L."""
        return len(self.link_name)

    @property
    def num_nodes(self) -> int:
        """Nodes (NVLink domains)."""
        return int(self.node_of.max()) + 1

    @property
    def gpus_per_node(self) -> int:
        """GPUs of the largest node."""
        return int(np.bincount(self.node_of).max())

    def routes(self, source: npt.NDArray[np.int32], destination: npt.NDArray[np.int32]) -> Routes:
        """int[F] devices -> CSR of their links; a device reaches itself over no link. Raises BadInput on a gap."""
        links = self.path[source, destination]
        used = links != NO_LINK
        count = used.sum(axis=1)
        lost = np.flatnonzero((count == 0) & (np.asarray(source) != np.asarray(destination)))
        if len(lost):
            pair = f"gpu{source[lost[0]]} to gpu{destination[lost[0]]}"
            raise BadInput(f"no route from {pair}", where=f"topology {self.name}", way_out="add a link")
        return Routes(np.concatenate(([0], np.cumsum(count))), links[used])
