"""One machine as tools describe it, NVLinks between its GPUs and how far each network port is -> keys of a topology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim import units
from moesim.errors import BadInput
from moesim.hardware.formats.format import Plain, node_of_like, rate_text
from moesim.hardware.formats.gpu_links import Generation
from moesim.hardware.schema import BETWEEN
from moesim.yamlfile import Document

Ints = npt.NDArray[np.int64]
NEAR = 3  # PIX, PXB, PHB: below the GPU's own PCIe root; 4 is the same socket, 5 the other one
FAR_NAME = {4: "in the same socket", 5: "behind the other socket"}


@dataclass(frozen=True)
class NvLinks:
    """direct int64[G, G]: NVLinks of pairs; switched int64[G]: NVLinks of each GPU into switches."""

    direct: Ints
    switched: Ints

    def keys(self, generation: Generation, source: str, where: str) -> tuple[Plain, list[str]]:
        """A node with a switch, a mesh or PCIe; links one by one where GPUs differ. Raises BadInput for a mixture."""
        gpus = len(self.switched)
        if self.switched.any() and self.direct.any():
            raise BadInput("some GPUs have NVLinks to a switch and some to each other", where=where)
        if self.switched.any():
            return self._switched(generation, source)
        pairs = self.direct[~np.eye(gpus, dtype=bool)]
        if not pairs.any():
            rate = {"value": rate_text(generation.pcie), "source": f"{source}: no NVLink; PCIe x16, nominal"}
            return {"node": {"gpus": gpus, "pcie": rate}}, []
        if np.all(pairs == pairs[0]):
            keys = _node(gpus, int(pairs[0]) * (gpus - 1), generation, source)
            keys["node"]["nvlink"]["shape"] = "mesh"
            return keys, []
        links = [_nvlink(f"gpu{a}", f"gpu{b}", self.direct[a, b], generation) for a, b in _pairs(self.direct)]
        return _listed(gpus, [], links, generation, source), ["pairs without NVLinks go over PCIe"]

    def _switched(self, generation: Generation, source: str) -> tuple[Plain, list[str]]:
        links, gpus = self.switched, len(self.switched)
        if np.all(links == links[0]):
            return _node(gpus, int(links[0]), generation, source), []
        made = [_nvlink(f"gpu{gpu}", "nvswitch", links[gpu], generation) for gpu in np.flatnonzero(links)]
        off = ", ".join(f"GPU {gpu}" for gpu in np.flatnonzero(links == 0))
        notes = [f"{off} without NVLink: over PCIe to every other GPU"] if off else []
        if len(counts := set(links[links > 0].tolist())) > 1:
            notes.append(f"GPUs differ in their NVLinks to the switch: {', '.join(map(str, sorted(counts)))}")
        return _listed(gpus, ["nvswitch"], made, generation, source), notes


def _node(gpus: int, links: int, generation: Generation, source: str) -> Plain:
    rate = {"value": rate_text(links * generation.nvlink), "source": f"{source}: {links} NVLinks a GPU, nominal"}
    return {"node": {"gpus": gpus, "nvlink": rate}}


def _pairs(direct: Ints) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in np.argwhere(np.triu(direct))]


def _nvlink(a: str, b: str, count: int, generation: Generation) -> Plain:
    return {"from": a, "to": b, "bandwidth": rate_text(int(count) * generation.nvlink), "kind": "nvlink"}


def _listed(gpus: int, switches: list[str], links: list[Plain], generation: Generation, source: str) -> Plain:
    """Links one by one, with PCIe below them for whoever has no other way."""
    rate = {"bandwidth": rate_text(generation.pcie), "kind": "pcie"}
    every = [*links, *({"from": f"gpu{gpu}", "to": "pcie", **rate} for gpu in range(gpus))]
    return {"switches": [*switches, "pcie"], "links": [{**link, "source": source} for link in every]}


@dataclass(frozen=True)
class Ports:
    """of_gpu: the port of each GPU, numbered from 0 without gaps; pooled: ports of a GPU that act as one."""

    of_gpu: tuple[int, ...]
    pooled: int
    notes: tuple[str, ...]

    def add_to(self, keys: Plain, rate: str, source: str) -> list[str]:
        """Writes the ports into `keys`; notes, also where links are listed one by one and ports have no place."""
        if not self.of_gpu:
            return list(self.notes)
        if "node" not in keys:
            return [*self.notes, f"{max(self.of_gpu) + 1} ports are left out: NVLinks are listed one by one"]
        node, gpus, count = keys["node"], len(self.of_gpu), max(self.of_gpu) + 1
        node["nic"] = {"value": rate, "source": source}
        if gpus % count == 0 and self.of_gpu == tuple(gpu // (gpus // count) for gpu in range(gpus)):
            node |= {"nics": count} if count != gpus else {}
        else:
            node["port_of"] = list(self.of_gpu)
        keys["fabric"] = {"kind": "rails", "nodes": 1}
        return list(self.notes)

    def as_in(self, like: Document, keys: Plain, who: str) -> list[str]:
        """`add_to` with the rate of the ports of `like`, which is said. Raises BadInput where that has none."""
        if not self.of_gpu:
            return list(self.notes)
        node = node_of_like(like, "a port")
        tier = next((found for name in BETWEEN if (found := node.get(name))), None)
        if tier is None:
            raise BadInput("its node has no port whose rate could be taken", where=like.source)
        pooled = f"{self.pooled} x {tier['value']}" if self.pooled > 1 else tier["value"]
        rate = rate_text(self.pooled * units.bandwidth(tier["value"])) if self.pooled > 1 else tier["value"]
        said = f"{who} states no rate of ports: {pooled}, as in {like.data['name']}"
        return [said, *self.add_to(keys, rate, f"rate as in {like.data['name']}")]


def nearest_ports(distance: Ints) -> Ports:
    """distance int64[G, N] (1 to 3: below the same PCIe root, 4 same socket, 5 other socket) -> which port a GPU uses.

    Ports that are near no GPU serve only where no port is near one. A GPU without a near port shares another's.
    """
    gpus, ports = distance.shape
    if not ports:
        return Ports((), 1, ("no network port: the node has no way out",))
    nearest = distance.min(axis=1)
    lonely = np.flatnonzero(nearest > NEAR).tolist()
    used = (distance == nearest[:, None]) & ((nearest <= NEAR)[:, None] | (len(lonely) == gpus))
    serving = np.flatnonzero(used.any(axis=0))
    if len(serving) >= gpus and len(lonely) in (0, gpus):
        pooled, rest = divmod(len(serving), gpus)
        pooled, said = (1, "one for each GPU is taken") if rest else (pooled, "those of a GPU act as one")
        several = (f"{len(serving)} ports lie near {gpus} GPUs; {said}",) if len(serving) > gpus else ()
        return Ports(tuple(range(gpus)), pooled, (*several, *_left_out(ports - len(serving))))
    of_gpu = _shared(distance[:, serving], nearest)
    return Ports(of_gpu, 1, (*_far(lonely, nearest), *_left_out(ports - len(serving))))


def _shared(distance: Ints, nearest: Ints) -> tuple[int, ...]:
    """Each GPU takes the first of the nearest ports that has not its even share of GPUs; near GPUs choose first."""
    load = np.zeros(distance.shape[1], dtype=np.int64)
    even = -(-len(distance) // len(load))
    choice = np.zeros(len(distance), dtype=np.int64)
    for gpu in np.argsort(nearest, kind="stable"):
        choice[gpu] = min(range(len(load)), key=lambda port: (distance[gpu, port], load[port] >= even, port))
        load[choice[gpu]] += 1
    first = {port: number for number, port in enumerate(dict.fromkeys(choice.tolist()))}
    return tuple(first[port] for port in choice.tolist())


def _far(lonely: Sequence[int], nearest: Ints) -> tuple[str, ...]:
    if not len(lonely):
        return ()
    names = ", ".join(f"GPU {gpu}" for gpu in lonely)
    places = " or ".join(FAR_NAME[steps] for steps in sorted(set(nearest[lonely].tolist())))
    return (f"{names}: the nearest port is {places}; it is shared, and the way through the host is not modelled",)


def _left_out(count: int) -> tuple[str, ...]:
    return (f"{count} ports are left out: nearer to no GPU than others",) if count else ()
