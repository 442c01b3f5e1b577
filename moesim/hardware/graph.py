"""An explicit list of links -> links and paths, whatever the order of the list.

A path has the fewest hops; among those, the widest bottleneck; among those, a hash of source, destination and hop picks
(as ECMP does, so that parallel spines share the load). Where messages are sprayed, further paths take at each switch
the next of its equal links after the hash's. A GPU is a hop of another's path only where there is no other
way: boxes of direct links, fabrics that join rails alone.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from moesim import streams
from moesim.errors import BadInput, unknown_name
from moesim.hardware.blueprint import MAX_GPUS, Blueprint, Ints, Link
from moesim.hardware.schema import LinkSection, TopologySection

_GPU = re.compile(r"gpu(0|[1-9][0-9]{0,5})")
Where = Callable[[tuple[str | int, ...]], str]
Ends = tuple[str, str]
Neighbours = dict[str, list[tuple[str, float, int]]]  # name -> (name, B/s, link)
_ECMP = streams.key("ecmp")


def build(topology: TopologySection, where: Where) -> Blueprint:
    """`links`, `switches` and `nodes` of a file -> Blueprint; `where(keys)` places errors in the file.

    Raises BadInput on a self-loop, a duplicate link, an unknown end, a gap in the GPUs' numbers, an unreachable pair.
    """
    directed = _directed(topology, where)
    gpus = _count_gpus(directed, where)
    node_of, rail_of = _nodes(topology, gpus, where)
    ends = sorted(directed)
    links = tuple(_link(pair, directed[pair]) for pair in ends)
    return Blueprint(node_of, rail_of, links, _paths(links, gpus, topology.spray, where))


def _link(ends: Ends, section: LinkSection) -> Link:
    return Link("->".join(ends), section.kind, *ends, section.bandwidth, section.latency, section.origin)


def _directed(topology: TopologySection, where: Where) -> dict[Ends, LinkSection]:
    known = frozenset(topology.switches)
    found: dict[Ends, LinkSection] = {}
    for number, link in enumerate(topology.links):
        place = where(("links", number))
        _check_ends(link, known, place)
        pair = (link.source, link.destination)
        for ends in (pair, pair[::-1]) if link.both_ways else (pair,):
            if ends in found:
                raise BadInput(
                    f"a second link from {ends[0]} to {ends[1]}",
                    where=place,
                    way_out="one link a direction; both_ways: false where both are listed",
                )
            found[ends] = link
    return found


def _check_ends(link: LinkSection, switches: frozenset[str], place: str) -> None:
    if link.source == link.destination:
        raise BadInput(f"a link from {link.source} to itself", where=place)
    for end in (link.source, link.destination):
        if not _GPU.fullmatch(end) and end not in switches:
            raise unknown_name("node", end, ["gpu0, gpu1, ...", *switches], where=place)


def _count_gpus(directed: dict[Ends, LinkSection], where: Where) -> int:
    numbers = sorted({int(match[1]) for pair in directed for end in pair if (match := _GPU.fullmatch(end))})
    gap = next((number for number, found in enumerate(numbers) if number != found), None)
    if not numbers or gap is not None:
        raise BadInput(f"no link reaches gpu{gap or 0}", where=where(("links",)), way_out="number GPUs without gaps")
    if len(numbers) > MAX_GPUS:
        raise BadInput(f"{len(numbers)} GPUs, at most {MAX_GPUS}", where=where(("links",)))
    return len(numbers)


def _nodes(topology: TopologySection, gpus: int, where: Where) -> tuple[Ints, Ints]:
    """node_of and rail_of int32[D]; nodes are numbered by their first GPU, rails by the order of GPUs in a node."""
    names = [f"gpu{gpu}" for gpu in range(gpus)]
    listed = topology.nodes or (tuple(names),)
    members = sorted(sorted(_number(name, gpus, where(("nodes", i))) for name in node) for i, node in enumerate(listed))
    if sorted(gpu for node in members for gpu in node) != list(range(gpus)):
        raise BadInput(
            f"nodes do not name each of {gpus} GPUs once", where=where(("nodes",)), way_out="one list a node"
        )
    node_of, rail_of = np.zeros(gpus, dtype=np.int32), np.zeros(gpus, dtype=np.int32)
    for number, node in enumerate(members):
        node_of[node], rail_of[node] = number, np.arange(len(node))
    return node_of, rail_of


def _number(name: str, gpus: int, place: str) -> int:
    match = _GPU.fullmatch(name)
    if match is None or int(match[1]) >= gpus:
        raise BadInput(f"{name!r} is none of gpu0..gpu{gpus - 1}", where=place)
    return int(match[1])


def _paths(links: Sequence[Link], gpus: int, spray: int, where: Where) -> tuple[Ints, ...]:
    """int32[D, D, hops] for each of the ways that a message is divided over."""
    into: Neighbours = {}
    out: Neighbours = {}
    for index, link in enumerate(links):
        into.setdefault(link.end, []).append((link.start, link.capacity, index))
        out.setdefault(link.start, []).append((link.end, link.capacity, index))
    found: dict[tuple[int, int], list[list[int]]] = {}
    for b in range(gpus):
        for relays in (False, True):
            best = _towards(f"gpu{b}", into, relays)
            nexts = _nexts(best, out, f"gpu{b}", relays)
            fresh = [a for a in range(gpus) if f"gpu{a}" in best and (a, b) not in found]
            found |= {(a, b): [_walk(a, b, nexts, way) for way in range(spray)] for a in fresh}
            lost = next((a for a in range(gpus) if (a, b) not in found), None)
            if lost is None:
                break
        else:
            raise BadInput(f"no route from gpu{lost} to gpu{b}", where=where(("links",)), way_out="add a link")
    hops = max(1, *(len(path) for ways in found.values() for path in ways))
    tables = np.full((spray, gpus, gpus, hops), -1, dtype=np.int32)
    for (a, b), ways in found.items():
        for way, path in enumerate(ways):
            tables[way, a, b, : len(path)] = path
    return tuple(tables)


def _towards(goal: str, into: Neighbours, relays: bool) -> dict[str, tuple[int, float]]:
    """name -> (hops to `goal`, widest bottleneck among the paths with so few hops); unreachable names are absent.

    relays: paths may lead over other GPUs.
    """
    best: dict[str, tuple[int, float]] = {goal: (0, np.inf)}
    queue = deque([goal])
    while queue:
        name = queue.popleft()
        hops, width = best[name]
        if name != goal and not relays and _GPU.fullmatch(name):
            continue
        for start, capacity, _ in into.get(name, []):
            offer = min(capacity, width)
            if start not in best:
                queue.append(start)
                best[start] = (hops + 1, offer)
            elif best[start][0] == hops + 1:
                best[start] = (hops + 1, max(best[start][1], offer))
    return best


def _walk(a: int, b: int, nexts: dict[str, list[tuple[str, int]]], way: int) -> list[int]:
    name, goal, path = f"gpu{a}", f"gpu{b}", list[int]()
    while name != goal:
        near = nexts[name]
        choice = (int(streams.hash_ints(_ECMP, a, b, len(path))) + way) % len(near) if len(near) > 1 else 0
        name, index = near[choice]
        path.append(index)
    return path


def _nexts(
    best: dict[str, tuple[int, float]], out: Neighbours, goal: str, relays: bool
) -> dict[str, list[tuple[str, int]]]:
    """name -> the neighbours (and links to them) over which a fewest-hops, widest path to the goal goes on."""
    ends = {name: place for name, place in best.items() if relays or name == goal or not _GPU.fullmatch(name)}
    return {
        name: [
            (end, index)
            for end, capacity, index in out.get(name, [])
            if end in ends and ends[end][0] == hops - 1 and min(capacity, ends[end][1]) >= width
        ]
        for name, (hops, width) in best.items()
    }
