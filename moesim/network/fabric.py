"""Fabric: what the links of a cluster achieve under the communication kernels that use them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from moesim.costs import CommunicationCost
from moesim.errors import BadInput
from moesim.hardware import Cluster
from moesim.network.flows import Coflow, Flows, Group


class Fabric:
    """capacity float64[L'] B/s: nominal rates times what the best of the kernels in use achieves on that kind of link.

    A kernel that achieves less on some kind of link (DeepEP's normal kernel forwards over NVLink at 135 of 200 GB/s)
    gets a port of its own beside each such link, which its flows have to pass as well: the wire stays shared, the
    kernel's limit binds only the kernel.
    """

    def __init__(self, cluster: Cluster, communication: Mapping[str, CommunicationCost]) -> None:
        self.cluster, self.communication = cluster, communication
        reached = {name: _achieved(cluster, cost) for name, cost in communication.items()}
        best = np.max(list(reached.values()), axis=0) if reached else np.ones(cluster.num_links)
        capacity, names = [cluster.link_capacity * best], list(cluster.link_name)
        self._paths: dict[str, npt.NDArray[np.int32]] = {}
        for name, efficiency in reached.items():
            limited = np.flatnonzero(efficiency < best)
            port = np.full(cluster.num_links + 1, -1, dtype=np.int32)
            port[limited] = len(names) + np.arange(len(limited))
            capacity.append((cluster.link_capacity * efficiency)[limited])
            names += [f"{cluster.link_name[link]} ({name})" for link in limited]
            self._paths[name] = _with_ports(cluster.path, port)
        self.capacity: npt.NDArray[np.float64] = np.concatenate(capacity)
        self.link_name: tuple[str, ...] = tuple(names)

    def coflow(self, algorithm: str, flows: Flows, group: Group) -> Coflow:
        """Flows of one collective on their paths. Raises BadInput where a flow with bytes has no route."""
        path = self._paths[algorithm][flows.source, flows.destination]
        lost = np.flatnonzero((path[:, 0] < 0) & (flows.bytes > 0))
        if len(lost):
            source, destination = flows.source[lost[0]], flows.destination[lost[0]]
            raise BadInput(f"no route from gpu{source} to gpu{destination}", where=f"topology {self.cluster.name}")
        return Coflow.of(flows, group, path, self.communication[algorithm].alpha)


def _achieved(cluster: Cluster, cost: CommunicationCost) -> npt.NDArray[np.float64]:
    """float64[L]: the fraction of each link's nominal rate that the kernel reaches, by the link's tier."""
    tiers = [kind.rsplit("_", 1)[0] for kind in cluster.link_kind]
    return np.array([cost.efficiency.get(tier, 1.0) for tier in tiers])


def _with_ports(path: npt.NDArray[np.int32], port: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """int32[D, D, hops] -> the same with the kernel's ports beside the links they limit, packed to the front."""
    if np.all(port < 0):
        return path
    first, rest = path[:, :, :1], path[:, :, 1:]
    both = np.concatenate((port[first], first, rest, port[rest]), axis=2)  # ports stand at the ends, as own ports do
    order = np.argsort(both < 0, axis=2, kind="stable")
    packed = np.take_along_axis(both, order, axis=2)
    hops = int((packed >= 0).sum(axis=2).max())
    return np.ascontiguousarray(packed[:, :, :hops])
