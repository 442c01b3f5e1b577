"""The `faults:` of a scenario -> rows for the engine: names of links become numbers, detours are found."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from moesim.engine import Fault
from moesim.errors import BadInput, placed
from moesim.hardware import Cluster
from moesim.network import Fabric
from moesim.network.detours import Around, Named, Search, cut_off
from moesim.network.ports import IN, OUT, detour
from moesim.studies.load import Loaded
from moesim.studies.scenario import FaultSection

NEAREST = 3  # names shown for one that is not known
PORT = re.compile(r"(gpu|nic)(\d+)/(\w+)_(?:up|down|out|in)")


class LinkNames:
    """Names of a cluster's links: each by its own name, both ways of a port as gpu3/nic or node0/nic3 (the fourth), all
    of a switch as leaf0 or spine2.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def find(self, name: str, where: str) -> tuple[int, ...]:
        """The links of that name. Raises BadInput with the nearest names."""
        if name not in self._known:
            near = difflib.get_close_matches(name, self._known, n=NEAREST, cutoff=0.0)
            raise BadInput(
                f"no link {name!r} in topology {self._cluster.name}",
                where=where,
                way_out=f"did you mean {', '.join(near)}? There are {self._cluster.num_links} links",
            )
        return self._known[name]

    @cached_property
    def _known(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, list[int]] = {}
        for link, name in enumerate(self._cluster.link_name):
            found.setdefault(name, []).append(link)
            if match := PORT.fullmatch(name):
                kind, number, port = match[1], int(match[2]), match[3]
                found.setdefault(f"{kind}{number}/{port}", []).append(link)
                found.setdefault(self._in_node(kind, number, port), []).append(link)
        return {**self._switches, **{name: tuple(links) for name, links in found.items()}}

    @cached_property
    def _switches(self) -> Mapping[str, tuple[int, ...]]:
        """What links join -> all links that start or end there."""
        found: dict[str, list[int]] = {}
        for link, ends in enumerate(self._cluster.link_ends):
            for end in dict.fromkeys(ends):
                found.setdefault(end, []).append(link)
        return {name: tuple(links) for name, links in found.items()}

    def is_switch(self, name: str) -> bool:
        """Whether it is a place that links join, no link itself."""
        return name in self._switches and name not in self._cluster.link_name

    def _in_node(self, kind: str, number: int, port: str) -> str:
        """The port of gpu19 is node2/nic3; ports that GPUs share are counted in their node as well."""
        if kind == "gpu":
            node = int(self._cluster.node_of[number])
            return f"node{node}/{port}{number - int(np.argmax(self._cluster.node_of == node))}"
        shared = sum(name.startswith(kind) and name.endswith("_out") for name in self._cluster.link_name)
        node, place = divmod(number, shared // self._cluster.num_nodes)
        return f"node{node}/{port}{place}"


def engine_faults(loaded: Loaded, fabric: Fabric, ranks: int) -> tuple[Fault, ...]:
    """One row per link or rank that is struck. Raises BadInput with the place of the row."""
    names = LinkNames(fabric.cluster)
    rows: list[Fault] = []
    for number, section in enumerate(loaded.scenario.faults):
        where = loaded.where_row("faults", number)
        rows += (
            _of_rank(section, ranks, where) if section.link is None else _of_link(section, fabric, names, ranks, where)
        )
    return tuple(rows)


def _of_rank(section: FaultSection, ranks: int, where: str) -> Iterator[Fault]:
    assert section.rank is not None
    if section.rank >= ranks:
        raise BadInput(
            f"rank {section.rank} takes no part, there are {ranks}", where=where, way_out=f"rank: 0 to {ranks - 1}"
        )
    yield Fault(section.at, section.factor, rank=section.rank, until=section.until)


def _of_link(section: FaultSection, fabric: Fabric, names: LinkNames, ranks: int, where: str) -> Iterator[Fault]:
    assert section.link is not None
    links, reroutes = names.find(section.link, where), section.then == "reroute"
    way = _way(section, fabric.cluster, names, links, ranks, where) if reroutes else {}
    for link in links:
        yield Fault(
            at=section.at,
            factor=section.factor,
            link=link,
            until=section.until,
            then=section.then,
            around=way.get(link),
            name=fabric.link_name[link],
        )
    if section.factor > 0:  # what a kernel reaches is a share of what the wire carries; a dead wire stops it anyway
        for port in fabric.kernel_ports(links):
            yield Fault(section.at, section.factor, link=port, until=section.until, name=fabric.link_name[port])


def _way(
    section: FaultSection, cluster: Cluster, names: LinkNames, links: Sequence[int], ranks: int, where: str
) -> dict[int, Around]:  # fmt: skip
    """Link -> how its flows go on: over the links that are named; from a GPU's own port over the next GPU's; or else by
    what a search finds. Raises BadInput where nothing leads round.
    """
    assert section.link is not None
    if section.detour:
        return {links[0]: Named(cluster, _given(section, cluster, names, links, where))}
    if not names.is_switch(section.link) and all(_own_port(cluster, link) for link in links):
        with placed(where):
            return {link: Named(cluster, detour(cluster, link)) for link in links}
    if (lost := cut_off(cluster, links, ranks)) is not None:
        raise BadInput(
            f"no way round {section.link}: gpu{lost} is cut off without it",
            where=where,
            way_out="then: stall with until:, when it is repaired; or then: abort",
        )
    return dict.fromkeys(links, Search(cluster))


def _own_port(cluster: Cluster, link: int) -> bool:
    kind, ends = cluster.link_kind[link], cluster.link_ends[link]
    return kind in (*OUT, *IN) and (ends[0] if kind in OUT else ends[1]).startswith("gpu")


def _given(
    section: FaultSection, cluster: Cluster, names: LinkNames, links: Sequence[int], where: str
) -> tuple[int, ...]:  # fmt: skip
    """The detour of a scenario: from where the link starts to where it ends, without a gap. Raises BadInput."""
    link = links[0]
    if len(links) > 1:
        raise BadInput("a detour is for one direction", where=where, way_out=f"link: {cluster.link_name[link]}")
    over = _one_each([names.find(name, where) for name in section.detour], section.detour, where)
    if link in over:
        way_out = "other links, or then: stall with until:, when it is repaired"
        raise BadInput(
            f"the detour of {cluster.link_name[link]} goes over the link itself", where=where, way_out=way_out
        )
    ends, at = cluster.link_ends, cluster.link_ends[link][0]
    for one in over:
        if ends[one][0] != at:
            raise BadInput(
                f"the detour has a gap: it is at {at}, and {cluster.link_name[one]} starts at {ends[one][0]}",
                where=where,
                way_out=f"name every link from {ends[link][0]} to {ends[link][1]} in order, or leave detour out",
            )
        at = ends[one][1]
    if at != ends[link][1]:
        raise BadInput(
            f"the detour ends at {at}, {cluster.link_name[link]} at {ends[link][1]}",
            where=where,
            way_out=f"name every link from {ends[link][0]} to {ends[link][1]} in order, or leave detour out",
        )
    return over


def _one_each(found: Sequence[tuple[int, ...]], given: Sequence[str], where: str) -> tuple[int, ...]:
    both = [name for name, links in zip(given, found, strict=True) if len(links) > 1]
    if both:
        raise BadInput(f"{both[0]!r} in a detour is two links", where=where, way_out="name one direction")
    return tuple(links[0] for links in found)
