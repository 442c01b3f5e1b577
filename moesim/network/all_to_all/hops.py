"""The two hops of algorithms that cross between nodes on one rail: device -> same-rail device -> device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.network.flows import Flows, Group
from moesim.network.ports import OUT

Matrix = npt.NDArray[np.int64]


def lands_at(group: Group) -> npt.NDArray[np.int32]:
    """int32[R, R]: the lane on a's rail in b's node (a itself at home). Raises BadInput where a node has none there."""
    peers = group.rail_peer[:, group.node_of_lane]
    if np.any(peers < 0):
        lane, other = np.argwhere(peers < 0)[0]
        raise BadInput(
            f"no GPU on the rail of gpu{group.devices[lane]} in the node of gpu{group.devices[other]}",
            where=f"topology {group.cluster.name}",
            way_out="nodes of equal size, or dispatch: nccl",
        )
    return group.lane_of[peers]


def rail_hop(group: Group, rows: Matrix, row_bytes: int) -> Flows:
    """rows int64[R, N] from each lane to each node -> one flow to the same-rail device there; nothing to its own."""
    elsewhere = np.arange(rows.shape[1])[None, :] != group.node_of_lane[:, None]
    lane, node = np.nonzero((rows > 0) & elsewhere)
    peers = group.rail_peer[lane, node]
    return Flows(lane.astype(np.int32), group.devices[lane], peers, rows[lane, node] * row_bytes)


def forwarded(group: Group, rows: Matrix) -> Matrix:
    """rows int64[R, R] by owner -> by the lane that hands them on inside the destination's node (owners at home)."""
    moved = np.zeros_like(rows)
    np.add.at(moved, (lands_at(group), np.arange(rows.shape[1])[None, :]), rows)
    return moved


def gathered(group: Group, rows: Matrix) -> tuple[Matrix, Matrix]:
    """rows int64[R, R] -> (inside a node: to the lane on the destination's rail, along rails: from that lane on)."""
    before = lands_at(group).T  # [a, b]: the lane on b's rail in a's node
    inside, along = np.zeros_like(rows), np.zeros_like(rows)
    lanes = np.arange(len(rows))
    np.add.at(inside, (lanes[:, None], before), rows)
    np.add.at(along, (before, lanes[None, :]), rows)
    return inside, along


def gateways(group: Group) -> npt.NDArray[np.int32]:
    """int32[R]: the first lane of a lane's node that leaves it by the same port; itself where the port is its own."""
    port = _ports_of(group)
    first: dict[tuple[int, int], int] = {}
    keys = zip(group.node_of_lane.tolist(), port.tolist(), strict=True)
    own = [first.setdefault(key, lane) if key[1] >= 0 else lane for lane, key in enumerate(keys)]
    return np.array(own, dtype=np.int32)


def _ports_of(group: Group) -> npt.NDArray[np.int64]:
    """int64[R]: the link by which each lane leaves its node, -1 where none is known, or none has to be."""
    nodes = group.node_of_lane
    found = np.full(len(nodes), -1, dtype=np.int64)
    for lane in range(len(nodes)) if nodes.any() else ():
        stranger = int(np.argmax(nodes != nodes[lane]))
        path = group.cluster.path[group.devices[lane], group.devices[stranger]]
        out = [int(link) for link in path if link >= 0 and group.cluster.link_kind[link] in OUT]
        found[lane] = out[0] if out else -1
    return found
