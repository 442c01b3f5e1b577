"""Nodes joined by a fabric -> links and paths, in closed form.

Links in order: up and down of every GPU inside its node, out and in of every port, then those of the fabric. Inside a
node a path is up, down. Between nodes it is out, the fabric's hops between two switches, in; where the fabric does not
cross rails, a GPU of the sender's node on the receiver's rail passes it on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.hardware.blueprint import MAX_GPUS, Blueprint, Ints, Link, packed
from moesim.hardware.fabrics import KINDS, Ground, Kind, kind_of
from moesim.hardware.fabrics.kind import tickets
from moesim.hardware.schema import BETWEEN, FabricSection, NodeSection

Bools = npt.NDArray[np.bool_]


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
    def networked(self) -> bool:
        return self.fabric.nodes > 1

    @property
    def kind(self) -> Kind:
        return kind_of(self.fabric.kind)

    @property
    def inner_goal(self) -> Ints:
        """int32[D, D]: where the way inside the first node ends: at the other GPU, one that passes on, or at once."""
        a, b = _ends(self)
        first = a - self.rail_of[:, None]
        relay = first + self.rail_of[None, :] if self.kind.relays else a
        return np.where(self.node_of[:, None] == self.node_of[None, :], b, relay).astype(np.int32)


def build(node: NodeSection, fabric: FabricSection, where: str) -> Blueprint:
    """Node and fabric -> Blueprint. Raises BadInput where several nodes have no port, and beyond MAX_GPUS."""
    if fabric.nodes > 1 and node.between is None:
        raise BadInput(
            f"{fabric.nodes} nodes and no node.nic", where=where, way_out=f"one node, or one of {', '.join(BETWEEN)}"
        )
    if node.gpus * fabric.nodes > MAX_GPUS:
        raise BadInput(
            f"{node.gpus * fabric.nodes} GPUs, at most {MAX_GPUS}",
            where=where,
            way_out=f"nodes: {max(MAX_GPUS // node.gpus, 1)}",
        )
    _check_keys(fabric, where)
    plan = _plan(node, fabric)
    inside, inner = _mesh(plan) if node.inside[1].shape == "mesh" else _switched(plan)
    links, paths = (inside, (packed(inner),)) if not plan.networked else _joined(plan, inside, inner, where)
    return Blueprint(plan.node_of, plan.rail_of, tuple(links), paths)


def _check_keys(fabric: FabricSection, where: str) -> None:
    """A key that acts in fabrics of other kinds only is refused, not forgotten."""
    fields = FabricSection.model_fields
    shaping = frozenset(fields) - {"kind", "nodes", "latency", "source"} - kind_of(fabric.kind).keys
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


def _switched(plan: _Plan) -> tuple[list[Link], list[Ints]]:
    kind, tier = plan.node.inside
    half = tier.latency / 2
    up = [
        Link(f"gpu{g}/{kind}_up", f"{kind}_up", f"gpu{g}", f"node{n}", tier.value, half, tier.source)
        for g, n in enumerate(plan.node_of)
    ]
    down = [
        Link(f"gpu{g}/{kind}_down", f"{kind}_down", f"node{n}", f"gpu{g}", tier.value, half, tier.source)
        for g, n in enumerate(plan.node_of)
    ]
    a, goal = _ends(plan)[0], plan.inner_goal
    moves = goal != a
    return up + down, [np.where(moves, a, -1), np.where(moves, plan.gpus + goal, -1)]


def _mesh(plan: _Plan) -> tuple[list[Link], list[Ints]]:
    kind, tier = plan.node.inside
    others = max(plan.node.gpus - 1, 1)
    pairs = np.argwhere(_near(plan))
    links = [
        Link(f"gpu{a}->gpu{b}", f"{kind}_pair", f"gpu{a}", f"gpu{b}", tier.value / others, tier.latency, tier.source)
        for a, b in pairs
    ]
    hop = np.full((plan.gpus, plan.gpus), -1, dtype=np.int32)
    hop[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
    return links, [hop[_ends(plan)[0], plan.inner_goal]]


def _joined(
    plan: _Plan, inside: list[Link], inner: list[Ints], where: str
) -> tuple[list[Link], tuple[Ints, ...]]:  # fmt: skip
    """Adds ports, leaves and the paths between nodes; one table of paths per queue pair."""
    assert plan.node.between is not None
    ports = _ports(plan)
    first_port, half = len(inside), len(plan.leaf_of)
    first_link = first_port + len(ports)
    apart = plan.node_of[:, None] != plan.node_of[None, :]
    out_of, into = plan.port_of[plan.inner_goal] if plan.kind.relays else plan.port_of[:, None], plan.port_of[None, :]
    wiring = plan.kind.wire(Ground(plan.fabric, plan.leaf_of, plan.node.between[1].value, where))
    out_leaf, in_leaf = (np.broadcast_to(plan.leaf_of[port], apart.shape) for port in (out_of, into))
    paths = []
    for queue_pair in range(plan.fabric.queue_pairs):
        hops = wiring.hops(out_leaf, in_leaf, tickets(out_of, into, queue_pair))
        between = [np.where(apart & (hop >= 0), first_link + hop, -1).astype(np.int32) for hop in hops]
        ports_used = (first_port + out_of, first_port + half + into)
        first, last = (np.where(apart, port, -1).astype(np.int32) for port in ports_used)
        paths.append(packed(_around(plan, inner, apart, [first, *between, last])))
    return [*inside, *ports, *wiring.links], tuple(paths)


def _around(plan: _Plan, inner: list[Ints], apart: Bools, outer: list[Ints]) -> list[Ints]:
    """All hops in order. Over PCIe the way to the port starts and ends on the GPU's own PCIe link."""
    if plan.node.inside[0] != "pcie" or len(inner) != 2:
        return [*inner, *outer]
    a, b = _ends(plan)
    up = np.where(apart, a, inner[0]).astype(np.int32)
    down = np.where(apart, plan.gpus + b, inner[1]).astype(np.int32)
    return [up, *outer, down]


def _ports(plan: _Plan) -> list[Link]:
    assert plan.node.between is not None
    kind, tier = plan.node.between
    owners, starts = _port_names(plan)
    links = []
    for way in ("out", "in"):
        for owner, start, leaf in zip(owners, starts, plan.leaf_of, strict=True):
            ends = (start, f"leaf{leaf}") if way == "out" else (f"leaf{leaf}", start)
            links.append(
                Link(f"{owner}/{kind}_{way}", f"{kind}_{way}", *ends, tier.value, tier.latency / 2, tier.source)
            )
    return links


def _port_names(plan: _Plan) -> tuple[list[str], list[str]]:
    """The name of each port, and of what it hangs on: its GPU, itself where GPUs share it, the node's PCIe switch."""
    ports = range(len(plan.leaf_of))
    each = len(set(plan.node.ports))
    own = plan.node.ports == tuple(range(plan.node.gpus))
    names = [f"{'gpu' if own else 'nic'}{port}" for port in ports]
    return names, [f"node{port // each}" for port in ports] if plan.node.inside[0] == "pcie" else names


def _ends(plan: _Plan) -> tuple[Ints, Ints]:
    gpu = np.arange(plan.gpus, dtype=np.int32)
    return gpu[:, None], gpu[None, :]


def _near(plan: _Plan) -> Bools:
    """bool[D, D]: two different GPUs of one node."""
    same: Bools = plan.node_of[:, None] == plan.node_of[None, :]
    np.fill_diagonal(same, False)
    return same
