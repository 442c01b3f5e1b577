"""Cluster: frozen devices and links in canonical order, and the answer to "which links lie between a and b"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.hardware.blueprint import Paths

NO_LINK = -1


@dataclass(frozen=True)
class Device:
    """One kind of GPU. peak_flops: dense FLOP/s by dtype; each figure's source stands in `sources`; like: the shipped
    profile whose kernels it runs, "" where they were measured on it or nobody can say; cache_bytes: of its last-level
    cache, host_link: B/s to memory of the host and back, 0 where nobody says.
    """

    name: str
    memory_bytes: int
    memory_bandwidth: float
    peak_flops: Mapping[str, float]
    sms: int
    sources: Mapping[str, str] = field(default_factory=dict)
    like: str = ""
    cache_bytes: int = 0
    host_link: float = 0.0


class Routes(NamedTuple):
    """CSR: route f uses links `link[ptr[f]:ptr[f + 1]]`."""

    ptr: npt.NDArray[np.int64]
    link: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Cluster:
    """Devices 0..D-1 and directed links 0..L-1.

    node_of, rail_of int32[D]; link_capacity float64[L] B/s nominal; link_latency float64[L] s;
    path int32[D, D, hops]: the links from one device to another in order, -1 padded; all -1 where there is no route;
    for thousands of devices no table, but what answers `path[a, b]` as one. more_paths: the same for further queue
    pairs (ECMP), spines (spray) and planes; a message is divided evenly over all of them. link_ends: the two names that
    each link joins, for pictures and exports. collides: flows may meet away from the GPUs' own links at any
    oversubscription (ECMP, listed links, ports behind PCIe).
    reduces_in_switch: the switch inside a node adds up and copies (NVLS). kind_of int32[D]: which of `devices` each is;
    empty where all are the first.
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
    path: Paths
    oversubscription: float = 1.0
    warnings: tuple[str, ...] = ()
    more_paths: tuple[Paths, ...] = ()
    link_ends: tuple[tuple[str, str], ...] = ()
    collides: bool = False
    reduces_in_switch: bool = False
    kind_of: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    @property
    def smallest_memory(self) -> int:
        """Bytes of the GPU that has least."""
        return min(device.memory_bytes for device in self.devices)

    def mean_device(self, gpus: int) -> Device:
        """What the first `gpus` have on average, of the rates that all of them have: theirs, where they are alike."""
        kinds: list[int] = self.kind_of[:gpus].tolist() or [0]
        own = [self.devices[kind] for kind in kinds]
        if len(set(kinds)) == 1:
            return own[0]
        rates = set.intersection(*(set(one.peak_flops) for one in own))
        return replace(
            own[0], name=" + ".join(dict.fromkeys(one.name for one in own)),
            memory_bytes=min(one.memory_bytes for one in own),
            memory_bandwidth=sum(one.memory_bandwidth for one in own) / len(own),
            peak_flops={rate: sum(one.peak_flops[rate] for one in own) / len(own) for rate in sorted(rates)},
            sms=min(one.sms for one in own),
        )  # fmt: skip

    @property
    def kinds(self) -> str:
        """How many there are of each kind, in words; "" where there is one."""
        counts = np.bincount(self.kind_of, minlength=len(self.devices))
        named = [f"{count} {device.name}" for device, count in zip(self.devices, counts.tolist(), strict=True)]
        return ", ".join(named) if len(self.devices) > 1 else ""

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

    @property
    def table(self) -> npt.NDArray[np.int32]:
        """`path` as a table. Raises BadInput where there are too many devices for one."""
        if not isinstance(self.path, np.ndarray):
            raise BadInput(f"{self.num_devices} GPUs have no table of paths", where=f"topology {self.name}")
        return self.path

    def mates(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """int32[P] each: all pairs of different devices of one node, by the first."""
        members = np.argsort(self.node_of, kind="stable").astype(np.int32)
        nodes = [node for node in np.split(members, np.cumsum(np.bincount(self.node_of))[:-1]) if len(node) > 1]
        pairs = [np.stack(np.meshgrid(node, node, indexing="ij"), axis=-1).reshape(-1, 2) for node in nodes]
        both = np.concatenate([np.zeros((0, 2), dtype=np.int32), *pairs])
        both = both[both[:, 0] != both[:, 1]]
        return both[:, 0], both[:, 1]

    def witnesses(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """int32[P] each: pairs of different devices that show what paths there are: all of them, or, where there is no
        table, all from the first and the last node, which templates place like any other.
        """
        devices = np.arange(self.num_devices, dtype=np.int32)
        tabled = isinstance(self.path, np.ndarray)
        starts = devices if tabled else devices[(self.node_of == 0) | (self.node_of == self.node_of[-1])]
        a, b = np.repeat(starts, len(devices)), np.tile(devices, len(starts))
        return a[a != b], b[a != b]

    def message_rate(self, a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """a, b int32[P] -> B/s of one message from a to b that is alone, by nominal capacities: a link that carries
        k of its w even parts lets it have w / k of the link's; infinite where there is no link.
        """
        tables = (self.path, *self.more_paths)
        links = np.sort(np.concatenate([table[a, b] for table in tables], axis=1), axis=1)
        place = np.arange(links.shape[1])
        begins = np.concatenate([np.ones((len(links), 1), dtype=np.bool_), links[:, 1:] != links[:, :-1]], axis=1)
        parts = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1) + 1
        capacity = np.append(self.link_capacity, np.inf)  # index -1: no link
        found: npt.NDArray[np.float64] = (capacity[links] * (len(tables) / parts)).min(axis=1)
        return found

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
