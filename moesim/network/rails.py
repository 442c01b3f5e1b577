"""Collectives over several nodes as NCCL runs them: as many rings or trees as a node has ports, each by another port.

A group has the same number k of lanes in each of its N nodes, k N = n; S bytes is the whole buffer of a lane. A lane's
port then carries, each way, with all k channels together,

    ring all-gather, reduce-scatter   S (n - 1) / (n k)
    ring all-reduce                   2 S (n - 1) / (n k)
    double binary tree                e S / (2 k)     e: edges of the node in both trees, 2 of 2 nodes, at most 4
    tree over NVLS                    the same

and its NVLink, with rings S (n - 1) / n a pass, less what leaves by the port; under a tree 2 S (k - 1) / k (a chain up
to the lane of the channel, and down again). In-switch reduction (NVLS) moves S (1 + 1 / k) each way instead: every lane
reads the sum of its k-th of the buffer out of the switch, which asks all lanes for it, and writes one copy, which the
switch hands to all. So bus bandwidth, 2 S (n - 1) / (n t) by nccl-tests' definition, can exceed what a link carries:
14 / 9 of it in a node of eight, and 1.67 of it in two such nodes, whose ports carry no more than S / 8 each.

Inside a node serving engines bring all-reduces of their own (`of_engine`): every rank reads all buffers of its peers
(one-shot) or a share of each and then the sums (two-shot), beyond some MB they call NCCL. Tables are as dispatched.

Sources: NVIDIA/nccl, src/graph (rings, trees) and src/device (NVLS, NVLSTree); nccl-tests, doc/PERFORMANCE.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.network.collectives import (
    Collective,
    Lanes,
    all_gather,
    all_reduce,
    lane_flows,
    reduce_scatter,
    tree_all_reduce,
)
from moesim.network.flows import Flows, Group

KERNEL = {"ring": "nccl_ring", "tree": "nccl_ring", "nvls": "nccl_nvls", "nvls_tree": "nccl_nvls"}  # whose constants
ENGINES = {name: f"all_reduce_{name}" for name in ("sglang", "trtllm", "vllm")}  # engine -> kernel of its all-reduce
RINGS = {"all_gather": all_gather, "reduce_scatter": reduce_scatter, "all_reduce": all_reduce}
Grid = npt.NDArray[np.int32]


def rail_ring(op: str, group: Group, lanes: Lanes, part: npt.NDArray[np.int64]) -> Collective:
    """op of RINGS over lanes int32[G, n]; part int64[R] bytes of each lane: a ring per rail, each with a share of them.

    Groups that have unlike numbers of lanes in their nodes, or lie in one node, run a single ring in their order.
    """
    grid = by_node(group, lanes)
    if grid is None or grid.shape[1] == 1:
        return RINGS[op](group, lanes, part)
    nodes, per_node = grid.shape[1:]
    made = [
        RINGS[op](group, ring, _share(part, per_node, number)) for number, ring in enumerate(_rotated(grid))
    ]  # fmt: skip
    passes = 2 if op == "all_reduce" else 1
    return Collective(
        op, per_node, passes * (per_node - 1), _merged(group, [one.flows for one in made]),
        further=passes * (nodes - 1) * (per_node - 1), crossings=passes * (nodes - 1), algorithm="ring",
    )  # fmt: skip


def tree(group: Group, lanes: Lanes, size: int) -> Collective | None:
    """All-reduce of `size` bytes over lanes int32[G, n]: chains inside nodes, double binary trees between them.

    None where the groups lie in one node, or unevenly in several.
    """
    grid = by_node(group, lanes)
    if grid is None or grid.shape[1] == 1:
        return None
    per_node = grid.shape[2]
    chains = [_chain(group, grid, channel, share) for channel, share in enumerate(_shares(size, per_node))]
    flows = _merged(group, [*chains, *_between(group, grid, size)])
    return _crossing(Collective("all_reduce", per_node, 2 * (per_node - 1), flows, algorithm="tree"), grid)


def nvls(group: Group, lanes: Lanes, size: int) -> Collective | None:
    """All-reduce of `size` bytes with reduction in the switch of each node, and trees between nodes.

    The flows load each lane's way up and down as NVLS does, whoever the partner is: all of them meet in the switch.
    None where a node's switch does not reduce, or groups lie unevenly in nodes or with one lane in each.
    """
    grid = by_node(group, lanes)
    if grid is None or grid.shape[2] == 1 or not group.cluster.reduces_in_switch:
        return None
    per_node = grid.shape[2]
    here = grid.reshape(-1, per_node)
    moved = np.full(here.size, size + -(-size // per_node), dtype=np.int64)
    inside = lane_flows(group, here.ravel(), np.roll(here, -1, axis=1).ravel(), moved)
    flows = _merged(group, [inside, *(_between(group, grid, size) if grid.shape[1] > 1 else ())])
    name = "nvls" if grid.shape[1] == 1 else "nvls_tree"
    return _crossing(Collective("all_reduce", per_node, 2, flows, algorithm=name), grid)


def by_node(group: Group, lanes: Lanes) -> Grid | None:
    """lanes int32[G, n] -> int32[G, N, k], the lanes of each node in order; None where nodes hold unlike numbers."""
    node = group.node_of_lane[lanes]
    order = np.argsort(node, axis=1, kind="stable")
    nodes = len(np.unique(node[0]))
    if lanes.shape[1] % nodes:
        return None
    there = np.take_along_axis(node, order, axis=1).reshape(len(lanes), nodes, -1)
    even = np.all(there == there[:, :, :1]) and np.all(np.diff(there[:, :, 0], axis=1) > 0)
    return np.take_along_axis(lanes, order, axis=1).reshape(there.shape) if even else None


def algorithms(op: str, group: Group, lanes: Lanes, part: npt.NDArray[np.int64]) -> tuple[Collective, ...]:
    """What NCCL can choose from for `op` over lanes int32[G, n] with part int64[R] bytes a lane (see `rail_ring`).

    Groups whose buffers differ are played as rings. Raises BadInput for another op.
    """
    if op not in RINGS:
        raise BadInput(f"{op} is none of {', '.join(RINGS)}")
    ring, sizes = rail_ring(op, group, lanes, part), np.unique(part[lanes].sum(axis=1))
    if op != "all_reduce" or len(sizes) != 1:
        return (ring,)
    others = (tree(group, lanes, int(sizes[0])), nvls(group, lanes, int(sizes[0])))
    return (ring, *(one for one in others if one is not None))


def of_engine(engine: str, op: str, group: Group, lanes: Lanes, part: npt.NDArray[np.int64]) -> tuple[Collective, ...]:
    """An engine's own all-reduce over lanes int32[G, n] of one node, as it picks one-shot, two-shot or NCCL by size: a
    ring's bytes, with start-ups that were measured so. Empty for what is NCCL's: other ops, several nodes.
    """
    grid = by_node(group, lanes) if op == "all_reduce" else None
    if grid is None or grid.shape[1] > 1:
        return ()
    return (replace(all_reduce(group, lanes, part), algorithm=engine),)


def _rotated(grid: Grid) -> Iterator[Lanes]:
    """int32[G, N, k] -> k rings int32[G, N k]. Nodes are passed upwards and downwards in turn, so that a ring goes from
    one node to the next between GPUs of one rail, and no two rings by the same port.
    """
    per_node = grid.shape[2]
    for first in range(per_node):
        up = (first + np.arange(per_node)) % per_node
        down = up[::-1]
        nodes = [grid[:, node, down if node % 2 else up] for node in range(grid.shape[1])]
        yield np.concatenate(nodes, axis=1)


def _between(group: Group, grid: Grid, size: int) -> list[Flows]:
    """A double binary tree over the nodes for each place inside them, with its share of the buffer."""
    return [
        tree_all_reduce(group, np.ascontiguousarray(grid[:, :, place]), share).flows
        for place, share in enumerate(_shares(size, grid.shape[2]))
    ]


def _chain(group: Group, grid: Grid, channel: int, share: int) -> Flows:
    """Up a chain to the lane in place `channel`, and down again, in every node."""
    per_node = grid.shape[2]
    chain = grid[:, :, (channel + np.arange(per_node)) % per_node].reshape(-1, per_node)
    near, far = chain[:, :-1].ravel(), chain[:, 1:].ravel()
    sizes = np.full(near.size, share, dtype=np.int64)
    return Flows.join(lane_flows(group, far, near, sizes), lane_flows(group, near, far, sizes))


def _crossing(collective: Collective, grid: Grid) -> Collective:
    return replace(collective, crossings=2 * (grid.shape[1] - 1).bit_length())


def _shares(size: int, parts: int) -> list[int]:
    """size cut into `parts`, the first ones larger."""
    return [size // parts + (place < size % parts) for place in range(parts)]


def _share(part: npt.NDArray[np.int64], parts: int, number: int) -> npt.NDArray[np.int64]:
    return part // parts + (number < part % parts)


def _merged(group: Group, several: list[Flows]) -> Flows:
    """One flow for each pair of lanes."""
    flows = Flows.join(*several)
    lanes = len(group.devices)
    pair, place = np.unique(
        flows.owner.astype(np.int64) * lanes + group.lane_of[flows.destination], return_inverse=True
    )
    owner = (pair // lanes).astype(np.int32)
    total = np.zeros(len(pair), dtype=np.int64)
    np.add.at(total, place, flows.bytes)
    return Flows(owner, group.devices[owner], group.devices[pair % lanes], total)
