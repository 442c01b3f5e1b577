"""What a topology amounts to per GPU, in a sentence, and beside the nearest shipped system."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim import yamlfile
from moesim.hardware.load import known_topologies
from moesim.hardware.schema import BETWEEN, INSIDE, FabricSection, LinkSection, TopologySection
from moesim.units import show_bandwidth

_GPU = re.compile(r"gpu(\d+)")
ALIKE = 1.1  # rates within 10 % are the same part in another's rounding
Rates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Census:
    """inside, between: tier -> B/s out of each GPU of a node, or of all GPUs where links are listed, float64[n]; those
    that share a port have equal parts of it.
    """

    name: str
    device: str
    gpus: int
    nodes: int
    inside: dict[str, Rates]
    between: dict[str, Rates]

    def sentence(self) -> str:
        """Counts and rates per GPU."""
        tiers = [f"{tier} {_range(rates)}" for tier, rates in self.inside.items()]
        ports = [f"{tier} {_range(rates)}" for tier, rates in self.between.items()] or ["no way out of a node"]
        rates = ", ".join([*tiers, *ports])
        return f"{self.gpus} GPUs ({self.device}) in {self.nodes} nodes; per GPU and direction: {rates}"

    def beside(self, other: Census) -> str:
        """Where this one differs from `other`."""
        found = []
        for mine, theirs in ((self.inside, other.inside), (self.between, other.between)):
            for tier in dict.fromkeys([*mine, *theirs]):
                a, b = (_range(side[tier]) if tier in side else "none" for side in (mine, theirs))
                if not _alike(mine.get(tier), theirs.get(tier)):
                    found.append(f"{tier} {a}, there {b}")
        return f"nearest shipped system {other.name}: {'; '.join(found) or 'the same rates'}"


def census(document: yamlfile.Document) -> Census:
    """Of a topology file. Raises BadInput."""
    topology = document.validate(TopologySection)
    if topology.node is None:
        return _of_links(topology)
    node, nodes = topology.node, (topology.fabric or FabricSection()).nodes
    (inner, tier), ports = node.inside, np.array(node.ports)
    share = 1 / np.bincount(ports)[ports]
    between = {name: each.value * share for name, each in [node.between or ("", None)] if each is not None}
    inside = {inner: np.full(node.gpus, tier.value)}
    return Census(topology.name, topology.device.name, node.gpus * nodes, nodes, inside, between)


def _of_links(topology: TopologySection) -> Census:
    """Of links one by one: what each GPU can send over those of its own."""
    ends = [(end, link) for link in topology.links for end in _senders(link)]
    gpus = 1 + max((int(match[1]) for end, _ in ends if (match := _GPU.fullmatch(end))), default=0)
    rates: dict[str, Rates] = {}
    for end, link in ends:
        if match := _GPU.fullmatch(end):
            rates.setdefault(link.kind, np.zeros(gpus))[int(match[1])] += link.bandwidth
    inside, between = ({t: rates[t] for t in tiers if t in rates} for tiers in (INSIDE, BETWEEN))
    return Census(topology.name, topology.device.name, gpus, len(topology.nodes) or 1, inside, between)


def _senders(link: LinkSection) -> tuple[str, ...]:
    return (link.source, link.destination) if link.both_ways else (link.source,)


def nearest_shipped(mine: Census) -> Census | None:
    """The shipped system of the same device whose rates are nearest; None where no device is the same."""
    shipped = [census(yamlfile.read_yaml(path)) for path in known_topologies().values()]
    same = [each for each in shipped if each.device == mine.device and each.name != mine.name]
    return min(same, key=lambda each: _distance(mine, each), default=None)


def _distance(a: Census, b: Census) -> float:
    tiers = [(a.inside.get(t), b.inside.get(t)) for t in INSIDE] + [
        (a.between.get(t), b.between.get(t)) for t in BETWEEN
    ]
    return sum(_octaves(x, y) for x, y in tiers)


def _octaves(a: Rates | None, b: Rates | None) -> float:
    """How many times their means differ by a factor of two; 10 where one of them is missing."""
    if a is None or b is None:
        return 0.0 if a is b else 10.0
    return abs(float(np.log2(a.mean() / b.mean())))


def _alike(a: Rates | None, b: Rates | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(low / ALIKE <= high <= low * ALIKE for low, high in ((a.min(), b.min()), (a.max(), b.max())))


def _range(rates: Rates) -> str:
    low, high = show_bandwidth(float(rates.min())), show_bandwidth(float(rates.max()))
    return low if low == high else f"{low} to {high}"
