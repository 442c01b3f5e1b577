"""An explicit list of links -> links and paths: shortest by hops, ties to the smaller name, in any order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import networkx as nx
import numpy as np

from moesim.errors import BadInput
from moesim.hardware.schema import LinkSection
from moesim.hardware.templates import Blueprint

_GPU = re.compile(r"gpu(0|[1-9][0-9]*)")


def build(links: Sequence[LinkSection], where: Sequence[str]) -> Blueprint:
    """Links and the place of each in its file -> Blueprint. GPUs are gpu0.., every other name is a switch.

    GPUs that share a switch named node<i> form node i. Raises BadInput on a self-loop, a duplicate link or a gap.
    """
    directed = _directed(links, where)
    names = sorted(directed)
    gpus = _gpus(names)
    index = {name: number for number, name in enumerate(names)}
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(sorted({end for pair in names for end in pair}))
    graph.add_edges_from(names)
    chosen = [directed[name] for name in names]
    return Blueprint(
        node_of=_nodes(graph, gpus),
        rail_of=np.zeros(gpus, dtype=np.int32),
        names=tuple(f"{a}->{b}" for a, b in names),
        kinds=tuple(link.kind for link in chosen),
        capacity=np.array([link.bandwidth for link in chosen]),
        latency=np.array([link.latency for link in chosen]),
        sources=tuple(link.origin for link in chosen),
        path=_paths(graph, gpus, index),
    )


def _directed(links: Sequence[LinkSection], where: Sequence[str]) -> dict[tuple[str, str], LinkSection]:
    found: dict[tuple[str, str], LinkSection] = {}
    for link, place in zip(links, where, strict=True):
        if link.source == link.destination:
            raise BadInput(f"a link from {link.source} to itself", where=place)
        pair = (link.source, link.destination)
        for ends in (pair, pair[::-1]) if link.both_ways else (pair,):
            if ends in found:
                raise BadInput(
                    f"a second link from {ends[0]} to {ends[1]}", where=place, way_out="one link a direction"
                )
            found[ends] = link
    return found


def _gpus(names: Sequence[tuple[str, str]]) -> int:
    numbers = sorted({int(match[1]) for pair in names for end in pair if (match := _GPU.fullmatch(end))})
    if not numbers or numbers != list(range(len(numbers))):
        raise BadInput(f"GPUs are numbered {numbers[:8]}", way_out="name them gpu0, gpu1, ... without gaps")
    return len(numbers)


def _nodes(graph: nx.DiGraph[str], gpus: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """A GPU belongs to the switch node<i> it hangs on; without such a switch all GPUs are one node."""
    switches = [
        min((name for name in graph.successors(f"gpu{gpu}") if name.startswith("node")), default="")
        for gpu in range(gpus)
    ]
    order = {name: number for number, name in enumerate(sorted(set(switches)))}
    return np.array([order[name] for name in switches], dtype=np.int32)


def _paths(
    graph: nx.DiGraph[str], gpus: int, index: dict[tuple[str, str], int]
) -> np.ndarray[tuple[int, int, int], np.dtype[np.int32]]:
    found = {(a, b): _path(graph, f"gpu{a}", f"gpu{b}") for a in range(gpus) for b in range(gpus) if a != b}
    hops = max((len(path) - 1 for path in found.values()), default=1)
    table = np.full((gpus, gpus, max(hops, 1)), -1, dtype=np.int32)
    for (a, b), path in found.items():
        for hop, ends in enumerate(itertools.pairwise(path)):
            table[a, b, hop] = index[ends]
    return table


def _path(graph: nx.DiGraph[str], source: str, destination: str) -> list[str]:
    """The shortest path; among equals the one whose names sort first. A GPU is never a hop. [] where there is none."""
    keep = [name for name in graph if not _GPU.fullmatch(name) or name in (source, destination)]
    inner = graph.subgraph(keep)
    if not nx.has_path(inner, source, destination):
        return []
    return min(nx.all_shortest_paths(inner, source, destination))
