"""Ways over the ports that leave a node, put together from the cluster's own paths.

A path between nodes has a head (from a GPU to its port and out to a switch), a middle (on over other switches, or
nothing) and a tail (in by a port, to a GPU). Head, middle and tail of different paths make a way where they meet.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.hardware import BETWEEN, Cluster, Paths, changed

Links = tuple[int, ...]
Ints = npt.NDArray[np.int32]
OUT, IN = (tuple(f"{tier}_{way}" for tier in BETWEEN) for way in ("out", "in"))


class Ports:
    """Heads, middles and tails of a cluster. Raises BadInput where no path leaves a node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        if cluster.num_nodes < 2 or not set(cluster.link_kind) & set(OUT):
            raise BadInput(
                "no path leaves a node by a port", where=f"topology {cluster.name}", way_out="cluster.nodes: 2 or more"
            )

        self._middles: dict[tuple[str, str], Links] = {}

    @cached_property
    def heads(self) -> list[Links]:
        """Of each GPU the links out of its port."""
        paths = [self._path(gpu, other) for gpu, other in enumerate(self._stranger)]
        return [path[: self._place(path, OUT) + 1] for path in paths]

    @cached_property
    def tails(self) -> list[Links]:
        """Of each GPU the links in by its port."""
        paths = [self._path(other, gpu) for gpu, other in enumerate(self._stranger)]
        return [path[self._place(path, IN) :] for path in paths]

    def middle(self, a: int, b: int) -> Links:
        """Links from the switch that a's port sends to, to the one that b's port receives from. Raises BadInput."""
        ends = self._end(self.heads[a][-1]), self._start(self.tails[b][0])
        if ends not in self._middles:
            self._middles[ends] = () if ends[0] == ends[1] else self._find_middle(a, b, ends[1])
        return self._middles[ends]

    def _find_middle(self, a: int, b: int, goal: str) -> Links:
        for other in (self._stranger[b], *range(self.cluster.num_devices)):
            if self.cluster.node_of[other] != self.cluster.node_of[a] and self._start(self.tails[other][0]) == goal:
                path = self._path(a, other)
                return path[self._place(path, OUT) + 1 : self._place(path, IN)]
        raise BadInput(f"no way from the port of gpu{a} to that of gpu{b}", where=f"topology {self.cluster.name}")

    @cached_property
    def _stranger(self) -> list[int]:
        """A GPU of the next node for each, in the same place where that node is as large."""
        nodes = [np.flatnonzero(self.cluster.node_of == node) for node in range(self.cluster.num_nodes)]
        found = [0] * self.cluster.num_devices
        for node, members in enumerate(nodes):
            others = nodes[(node + 1) % len(nodes)]
            for place, gpu in enumerate(members):
                found[int(gpu)] = int(others[min(place, len(others) - 1)])
        return found

    def _path(self, a: int, b: int) -> Links:
        path = self.cluster.path[a, b]
        return tuple(int(link) for link in path[path >= 0])

    def _place(self, path: Links, kinds: tuple[str, ...]) -> int:
        return next(place for place, link in enumerate(path) if self.cluster.link_kind[link] in kinds)

    def _start(self, link: int) -> str:
        return self.cluster.link_ends[link][0]

    def _end(self, link: int) -> str:
        return self.cluster.link_ends[link][1]


def rdma_paths(cluster: Cluster, paths: Paths) -> Paths:
    """Paths -> the same with those inside nodes going out of one port and in by another."""
    ports, (mine, its) = Ports(cluster), cluster.mates()
    ways = [
        (*ports.heads[a], *ports.middle(a, b), *ports.tails[b])
        for a, b in zip(mine.tolist(), its.tolist(), strict=True)
    ]
    most = max([paths.shape[2], *map(len, ways)])
    inside = np.full((cluster.num_devices, cluster.gpus_per_node, most), -1, dtype=np.int32)
    for a, b, way in zip(mine, cluster.rail_of[its], ways, strict=True):
        inside[a, b, : len(way)] = way

    def over(a: Ints, b: Ints, path: Ints) -> Ints:
        same = (cluster.node_of[a] == cluster.node_of[b]) & (a != b)
        wide = np.full((*path.shape[:-1], most), -1, dtype=np.int32)
        wide[..., : path.shape[-1]] = path
        return np.where(same[..., None], inside[a, cluster.rail_of[b]], wide)

    return changed(paths, over, most)


def detour(cluster: Cluster, link: int) -> Links:
    """Links that stand in for a GPU's dead port: over the next GPU of its node and that one's port. Raises BadInput."""
    kind, ends = cluster.link_kind[link], cluster.link_ends[link]
    owner = ends[0] if kind in OUT else ends[1]
    if kind not in (*OUT, *IN) or not owner.startswith("gpu"):
        raise BadInput(
            f"no detour is known for {cluster.link_name[link]}, only for a GPU's own port",
            way_out="name the links of one with detour: [...]",
        )
    gpu, ports = int(owner.removeprefix("gpu")), Ports(cluster)
    mates = np.flatnonzero(cluster.node_of == cluster.node_of[gpu])
    mate = int(mates[(np.searchsorted(mates, gpu) + 1) % len(mates)])
    if mate == gpu:
        raise BadInput(f"gpu{gpu} is alone in its node: no other port can stand in for its own")
    over = cluster.path[gpu, mate] if kind in OUT else cluster.path[mate, gpu]
    inside = tuple(int(hop) for hop in over[over >= 0])
    if kind in OUT:
        return (*inside, *ports.heads[mate], *ports.middle(mate, gpu))
    return (*ports.middle(gpu, mate), *ports.tails[mate], *inside)
