"""Nodes joined by a fabric -> links and paths, in closed form.

Links in order: those of nodes, then of each plane the ports out and in and the fabric. Inside a node a path is up,
down, between racks of a node by way of their trunks. Between nodes it is out, the fabric's hops between two switches,
in; where the fabric does not cross rails, a GPU of the sender's node on the receiver's rail passes it on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.hardware.blueprint import MOST_GPUS, Blueprint, Ints, Link, Paths, laid_out
from moesim.hardware.fabrics import KINDS, Ground, Kind, Wiring, kind_of
from moesim.hardware.fabrics.kind import tickets
from moesim.hardware.schema import BETWEEN, FabricSection, InsideSection, NodeSection

Bools = npt.NDArray[np.bool_]
Hops = Callable[[Ints, Ints], list[Ints]]  # two arrays of GPUs of one shape -> links in order, -1: not taken


@dataclass(frozen=True)
class _Plan:
    """Who sits where: node_of, rail_of, port_of int32[D]; leaf_of int32[ports]."""

    node: NodeSection
    fabric: FabricSection
    node_of: Ints
    rail_of: Ints
    port_of: Ints
    leaf_of: Ints

    @property
    def gpus(self) -> int:
        return len(self.node_of)

    @property
    def kind(self) -> Kind:
        return kind_of(self.fabric.kind)

    def apart(self, a: Ints, b: Ints) -> Bools:
        """GPUs of different nodes."""
        return np.asarray(self.node_of[a] != self.node_of[b])

    def goal(self, a: Ints, b: Ints) -> Ints:
        """Where the way inside the first node ends: at the other GPU, one that passes on, or at once."""
        relay = a - self.rail_of[a] + self.rail_of[b] if self.kind.relays else a
        return np.where(self.apart(a, b), relay, b).astype(np.int32)


class _Plane(NamedTuple):
    """One of the networks that every node hangs on; its ports start at link `first`, its fabric at `beyond`."""

    wiring: Wiring
    first: int
    beyond: int


def build(node: NodeSection, fabric: FabricSection, where: str) -> Blueprint:
    """Node and fabric -> Blueprint. Raises BadInput where several nodes have no port, and beyond MOST_GPUS."""
    if fabric.nodes > 1 and node.between is None:
        raise BadInput(
            f"{fabric.nodes} nodes and no node.nic", where=where, way_out=f"one node, or one of {', '.join(BETWEEN)}"
        )
    if node.gpus * fabric.nodes > MOST_GPUS:
        raise BadInput(
            f"{node.gpus * fabric.nodes} GPUs, at most {MOST_GPUS}",
            where=where,
            way_out=f"nodes: {max(MOST_GPUS // node.gpus, 1)}",
        )
    _check_keys(fabric, where)
    plan = _plan(node, fabric)
    links, inner = _mesh(plan) if node.inside[1].shape == "mesh" else _switched(plan)
    paths: tuple[Paths, ...] = (laid_out(plan.gpus, inner),)
    if fabric.nodes > 1:
        paths = _join(plan, links, inner, where)
    return Blueprint(plan.node_of, plan.rail_of, tuple(links), paths)


def _check_keys(fabric: FabricSection, where: str) -> None:
    """A key that acts in fabrics of other kinds only is refused, not forgotten."""
    fields = FabricSection.model_fields
    shaping = frozenset(fields) - {"kind", "nodes", "planes", "latency", "source"} - kind_of(fabric.kind).keys
    others = sorted(key for key in shaping if getattr(fabric, key) != fields[key].default)
    if others:
        kinds = " or ".join(name for name, kind in KINDS.items() if others[0] in kind.keys)
        raise BadInput(
            f"{others[0]} has no effect on {fabric.kind}", where=where, way_out=f"leave it out, or kind: {kinds}"
        )


def _plan(node: NodeSection, fabric: FabricSection) -> _Plan:
    gpu = np.arange(node.gpus * fabric.nodes, dtype=np.int32)
    own = np.array(node.ports, dtype=np.int32)
    ports = int(own.max()) + 1
    port = np.arange(ports * fabric.nodes, dtype=np.int32)
    leaf_of = kind_of(fabric.kind).seat(port, ports, fabric).astype(np.int32)
    node_of, rail_of = gpu // node.gpus, gpu % node.gpus
    return _Plan(node, fabric, node_of, rail_of, node_of * ports + own[rail_of], leaf_of)


def _switched(plan: _Plan) -> tuple[list[Link], Hops]:
    kind, tier = plan.node.inside
    half, each = tier.latency / 2, plan.node.gpus // tier.racks
    racks = plan.gpus // each if tier.racks > 1 else 0
    switch = [f"rack{gpu // each}" if racks else f"node{node}" for gpu, node in enumerate(plan.node_of)]
    up = [
        Link(f"gpu{g}/{kind}_up", f"{kind}_up", f"gpu{g}", name, tier.value, half, tier.source)
        for g, name in enumerate(switch)
    ]
    down = [
        Link(f"gpu{g}/{kind}_down", f"{kind}_down", name, f"gpu{g}", tier.value, half, tier.source)
        for g, name in enumerate(switch)
    ]

    def hops(a: Ints, b: Ints) -> list[Ints]:
        goal = plan.goal(a, b)
        moves, climbs = goal != a, goal // each != a // each
        trunks = [
            np.where(climbs, 2 * plan.gpus + a // each, -1),
            np.where(climbs, 2 * plan.gpus + racks + goal // each, -1),
        ]
        return [np.where(moves, a, -1), *(trunks if racks else []), np.where(moves, plan.gpus + goal, -1)]

    return [*up, *down, *_trunks(plan, kind, tier, racks)], hops


def _trunks(plan: _Plan, kind: str, tier: InsideSection, racks: int) -> list[Link]:
    """Up and down between the switches of a rack and those that join the racks of a node; each way pooled."""
    rate = plan.node.gpus // tier.racks * tier.value / tier.oversubscription
    made = []
    for way in ("up", "down"):
        for rack in range(racks):
            ends = (f"rack{rack}", f"node{rack // tier.racks}")
            ends = ends if way == "up" else ends[::-1]
            made.append(Link(f"rack{rack}/{kind}_{way}", f"{kind}_trunk", *ends, rate, 0.0, tier.source))
    return made


def _mesh(plan: _Plan) -> tuple[list[Link], Hops]:
    kind, tier = plan.node.inside
    others = max(plan.node.gpus - 1, 1)
    pairs = [(a, b) for a in range(plan.gpus) for b in _mates(plan, a)]
    links = [
        Link(f"gpu{a}->gpu{b}", f"{kind}_pair", f"gpu{a}", f"gpu{b}", tier.value / others, tier.latency, tier.source)
        for a, b in pairs
    ]

    def hops(a: Ints, b: Ints) -> list[Ints]:
        goal = plan.goal(a, b)
        mine, its = plan.rail_of[a], plan.rail_of[goal]
        return [np.where(goal != a, a * others + its - (its > mine), -1)]

    return links, hops


def _mates(plan: _Plan, gpu: int) -> list[int]:
    first = gpu - gpu % plan.node.gpus
    return [mate for mate in range(first, first + plan.node.gpus) if mate != gpu]


def _join(plan: _Plan, links: list[Link], inner: Hops, where: str) -> tuple[Paths, ...]:
    """Adds ports and fabric of every plane to `links`; paths of each plane, and in it of each queue pair or spine."""
    fabric, planes = plan.fabric, []
    for number in range(fabric.planes):
        ports = _ports(plan, number)
        rate = ports[0].capacity
        wiring = plan.kind.wire(Ground(fabric, plan.leaf_of, rate, where))
        planes.append(_Plane(wiring, len(links), len(links) + len(ports)))
        links += [*ports, *(_in_plane(link, number, fabric.planes) for link in wiring.links)]
    return tuple(
        laid_out(plan.gpus, partial(_between, plan, inner, plane, way))
        for way in range(_ways(fabric))
        for plane in planes
    )


def _ways(fabric: FabricSection) -> int:
    return fabric.spines if fabric.routing == "spray" else fabric.queue_pairs


def _between(plan: _Plan, inner: Hops, plane: _Plane, way: int, a: Ints, b: Ints) -> list[Ints]:
    """The hops of a plane, by queue pair or spine `way`."""
    apart, half = plan.apart(a, b), len(plan.leaf_of)
    out_of, into = plan.port_of[plan.goal(a, b) if plan.kind.relays else a], plan.port_of[b]
    spread = plan.fabric.routing == "spray"
    ticket = np.full(apart.shape, way, dtype=np.uint64) if spread else tickets(out_of, into, way)
    leaves = [np.broadcast_to(plan.leaf_of[port], apart.shape) for port in (out_of, into)]
    hops = plane.wiring.hops(leaves[0], leaves[1], ticket)
    fabric = [np.where(apart & (hop >= 0), plane.beyond + hop, -1) for hop in hops]
    ports = [np.where(apart, plane.first + out_of, -1), np.where(apart, plane.first + half + into, -1)]
    return _around(plan, inner(a, b), apart, a, b, [ports[0], *fabric, ports[1]])


def _around(plan: _Plan, inner: list[Ints], apart: Bools, a: Ints, b: Ints, outer: list[Ints]) -> list[Ints]:
    """All hops in order. Over PCIe the way to the port starts and ends on the GPU's own PCIe link."""
    if plan.node.inside[0] != "pcie" or plan.node.inside[1].shape == "mesh":
        return [*inner, *outer]
    up, down = np.where(apart, a, inner[0]), np.where(apart, plan.gpus + b, inner[-1])
    return [up, *inner[1:-1], *outer, down]


def _in_plane(link: Link, number: int, planes: int) -> Link:
    """A link of a fabric, under names of its plane where there are several."""
    if planes == 1:
        return link
    mark = f"plane{number}/"
    return link._replace(name=mark + link.name, start=mark + link.start, end=mark + link.end)


def _ports(plan: _Plan, plane: int) -> list[Link]:
    """Out and in of every port; of several planes each has an even share of its rate."""
    assert plan.node.between is not None
    (kind, tier), planes = plan.node.between, plan.fabric.planes
    owners, starts = _port_names(plan)
    mark = f"plane{plane}/" if planes > 1 else ""
    links = []
    for way in ("out", "in"):
        for owner, start, leaf in zip(owners, starts, plan.leaf_of, strict=True):
            ends = (start, f"{mark}leaf{leaf}") if way == "out" else (f"{mark}leaf{leaf}", start)
            name, rate = f"{owner}/{mark}{kind}_{way}", tier.value / planes
            links.append(Link(name, f"{kind}_{way}", *ends, rate, tier.latency / 2, tier.source))
    return links


def _port_names(plan: _Plan) -> tuple[list[str], list[str]]:
    """The name of each port, and of what it hangs on: its GPU, itself where GPUs share it, the node's PCIe switch."""
    ports = range(len(plan.leaf_of))
    each = len(set(plan.node.ports))
    own = plan.node.ports == tuple(range(plan.node.gpus))
    names = [f"{'gpu' if own else 'nic'}{port}" for port in ports]
    return names, [f"node{port // each}" for port in ports] if plan.node.inside[0] == "pcie" else names
