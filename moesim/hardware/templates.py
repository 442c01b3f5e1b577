"""Nodes joined by a two-tier fabric -> links and paths, in closed form for any number of GPUs.

Links in order: up and down of every GPU inside its node, out and in of every port, then up and down of every leaf.
Inside a node a path is up, down. Between nodes it is out, in under one leaf, with leaf up and leaf down between leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import BadInput
from moesim.hardware.blueprint import MAX_GPUS, Blueprint, Ints, Link, packed
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
    plan = _plan(node, fabric)
    inside, inner = _mesh(plan) if node.inside[1].shape == "mesh" else _switched(plan)
    links, paths = (inside, (packed(inner),)) if not plan.networked else _joined(plan, inside, inner)
    return Blueprint(plan.node_of, plan.rail_of, tuple(links), paths)


def _plan(node: NodeSection, fabric: FabricSection) -> _Plan:
    gpu = np.arange(node.gpus * fabric.nodes, dtype=np.int32)
    own = np.array(node.ports, dtype=np.int32)
    ports = int(own.max()) + 1
    port = np.arange(ports * fabric.nodes, dtype=np.int32)
    leaf_of = port % ports if fabric.kind == "rails" else port // ports // fabric.nodes_per_leaf
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
    a, b = _ends(plan)
    near = _near(plan)
    return up + down, [np.where(near, a, -1), np.where(near, plan.gpus + b, -1)]


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
    return links, [hop]


def _joined(plan: _Plan, inside: list[Link], inner: list[Ints]) -> tuple[list[Link], tuple[Ints, ...]]:
    """Adds ports, leaves and the paths between nodes; one table of paths per queue pair."""
    ports = _ports(plan)
    first_port = len(inside)
    first_leaf = first_port + len(ports)
    apart = plan.node_of[:, None] != plan.node_of[None, :]
    a, b = plan.port_of[:, None], plan.port_of[None, :]
    out = np.where(apart, first_port + a, -1).astype(np.int32)
    into = np.where(apart, first_port + len(plan.leaf_of) + b, -1).astype(np.int32)
    paths = []
    for queue_pair in range(plan.fabric.queue_pairs):
        up, down = _spine_hops(plan, apart, first_leaf, queue_pair)
        paths.append(packed(_around(plan, inner, apart, [out, up, down, into])))
    return [*inside, *ports, *_leaves(plan)], tuple(paths)


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


def _leaves(plan: _Plan) -> list[Link]:
    """One pooled uplink per leaf under adaptive routing, one per leaf and spine under ECMP."""
    assert plan.node.between is not None
    fabric, rate = plan.fabric, plan.node.between[1].value
    hashed, half = fabric.routing == "ecmp", fabric.latency / 2
    links = []
    for way in ("up", "down"):
        for leaf, below in enumerate(np.bincount(plan.leaf_of)):
            share = float(below) * rate / fabric.oversubscription / fabric.spines
            for spine in range(fabric.spines):
                top, name = (f"spine{spine}", f"leaf{leaf}/{way}{spine}") if hashed else ("spine", f"leaf{leaf}/{way}")
                ends = (f"leaf{leaf}", top) if way == "up" else (top, f"leaf{leaf}")
                links.append(Link(name, f"leaf_{way}", *ends, share, half, fabric.source))
    return links


def _spine_hops(plan: _Plan, apart: Bools, first_leaf: int, queue_pair: int) -> tuple[Ints, Ints]:
    """int32[D, D] each: the link up to the spine and the one down from it, -1 where both ports share a leaf."""
    leaf, spines = plan.leaf_of[plan.port_of], plan.fabric.spines
    down = first_leaf + (int(plan.leaf_of.max()) + 1) * spines
    climbs = apart & (leaf[:, None] != leaf[None, :])
    ports = (plan.port_of[:, None], plan.port_of[None, :])
    spine = (streams.hash_ints(streams.key("ecmp"), *ports, queue_pair) % np.uint64(spines)).astype(np.int32)
    return (
        np.where(climbs, first_leaf + leaf[:, None] * spines + spine, -1).astype(np.int32),
        np.where(climbs, down + leaf[None, :] * spines + spine, -1).astype(np.int32),
    )


def _ends(plan: _Plan) -> tuple[Ints, Ints]:
    gpu = np.arange(plan.gpus, dtype=np.int32)
    return gpu[:, None], gpu[None, :]


def _near(plan: _Plan) -> Bools:
    """bool[D, D]: two different GPUs of one node."""
    same: Bools = plan.node_of[:, None] == plan.node_of[None, :]
    np.fill_diagonal(same, False)
    return same
