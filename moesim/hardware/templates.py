"""Nodes joined by a two-tier fabric -> links and paths, in closed form for any number of GPUs.

Links in order: NVLink up and down of every GPU, NIC out and in of every GPU, then up and down of every leaf. Inside a
node a path is up, down. Between nodes it is NIC out, NIC in under one leaf, with leaf up and leaf down between leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.hardware.schema import FabricSection, NodeSection

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Blueprint:
    """Columns of a Cluster's links, and its paths."""

    node_of: Ints
    rail_of: Ints
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    capacity: npt.NDArray[np.float64]
    latency: npt.NDArray[np.float64]
    sources: tuple[str, ...]
    path: Ints


def build(node: NodeSection, fabric: FabricSection, where: str) -> Blueprint:
    """Node and fabric -> Blueprint. Raises BadInput where several nodes have no NIC."""
    gpus = node.gpus * fabric.nodes
    if fabric.nodes > 1 and node.nic is None:
        raise BadInput(f"{fabric.nodes} nodes and no node.nic", where=where, way_out="one node, or a NIC rate")
    gpu = np.arange(gpus, dtype=np.int32)
    node_of, rail_of = gpu // node.gpus, gpu % node.gpus
    leaf_of = rail_of if fabric.kind == "rails" else node_of // fabric.nodes_per_leaf
    rows = [*_ports(node, gpus, fabric.nodes > 1), *(_leaves(node, fabric, leaf_of) if fabric.nodes > 1 else [])]
    names, kinds, capacity, latency, sources = zip(*rows, strict=True)
    path = _paths(node_of, leaf_of, fabric.nodes > 1)
    return Blueprint(node_of, rail_of, names, kinds, np.array(capacity), np.array(latency), sources, path)


Row = tuple[str, str, float, float, str]


def _ports(node: NodeSection, gpus: int, networked: bool) -> list[Row]:
    rows: list[Row] = []
    kind = node.nvlink_kind
    for way in ("up", "down"):
        figures = (f"{kind}_{way}", node.nvlink.value, node.nvlink_latency / 2, node.nvlink.source)
        rows += [(f"gpu{gpu}/{kind}_{way}", *figures) for gpu in range(gpus)]
    if networked and node.nic is not None:
        for way in ("out", "in"):
            nic = (f"nic_{way}", node.nic.value, node.nic_latency / 2, node.nic.source)
            rows += [(f"gpu{gpu}/nic_{way}", *nic) for gpu in range(gpus)]
    return rows


def _leaves(node: NodeSection, fabric: FabricSection, leaf_of: Ints) -> list[Row]:
    rate = node.nic.value if node.nic else 0.0
    below = np.bincount(leaf_of)
    return [
        (f"leaf{leaf}/{way}", f"leaf_{way}", float(count) * rate / fabric.oversubscription, 0.0, fabric.source)
        for way in ("up", "down")
        for leaf, count in enumerate(below)
    ]


def _paths(node_of: Ints, leaf_of: Ints, networked: bool) -> Ints:
    gpus, leaves = len(node_of), int(leaf_of.max()) + 1
    a, b = np.arange(gpus, dtype=np.int32)[:, None], np.arange(gpus, dtype=np.int32)[None, :]
    path = np.full((gpus, gpus, 4 if networked else 2), -1, dtype=np.int32)
    same_node = (node_of[:, None] == node_of[None, :]) & (a != b)
    path[..., 0] = np.where(same_node, a, path[..., 0])
    path[..., 1] = np.where(same_node, gpus + b, path[..., 1])
    if networked:
        apart = node_of[:, None] != node_of[None, :]
        climbs = apart & (leaf_of[:, None] != leaf_of[None, :])
        first_leaf = 4 * gpus
        hops: tuple[Ints, ...] = (
            2 * gpus + a,
            first_leaf + leaf_of[:, None],
            first_leaf + leaves + leaf_of[None, :],
            3 * gpus + b,
        )
        for hop, (link, used) in enumerate(zip(hops, (apart, climbs, climbs, apart), strict=True)):
            path[..., hop] = np.where(used, link, path[..., hop])
    return path
