"""The two hops of algorithms that cross between nodes on one rail: device -> same-rail device -> device."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.errors import BadInput, BrokenInvariant
from moesim.network.copies import Matrix
from moesim.network.flows import Group
from moesim.network.ports import OUT


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


def rail_hop(group: Group, rows: Matrix) -> Matrix:
    """rows int64[..., R, N] from each lane to each node -> to the lane on its rail there; nothing to its own."""
    lanes = np.arange(len(group.devices))
    owner, node = np.nonzero(np.arange(rows.shape[-1])[None, :] != group.node_of_lane[:, None])
    lands_at(group)
    peers = group.lane_of[group.rail_peer[owner, node]]
    return added_up(rows[..., owner, node], owner, peers, len(lanes))


def forwarded(group: Group, rows: Matrix) -> Matrix:
    """rows int64[..., R, R] by owner -> by the lane that hands them on in the destination's node; owners at home."""
    lanes = np.arange(rows.shape[-1])
    return added_up(rows, lands_at(group), lanes[None, :], len(lanes))


def gathered(group: Group, rows: Matrix) -> tuple[Matrix, Matrix]:
    """rows int64[..., R, R] -> (inside a node: to the lane on the destination's rail, along rails: from that on)."""
    before = lands_at(group).T  # [a, b]: the lane on b's rail in a's node
    lanes = np.arange(rows.shape[-1])
    inside = added_up(rows, lanes[:, None], before, len(lanes))
    return inside, added_up(rows, before, lanes[None, :], len(lanes))


def added_up(rows: Matrix, owner: npt.ArrayLike, target: npt.ArrayLike, lanes: int) -> Matrix:
    """rows int64[..., entries]; owner, target: the lanes of each entry -> int64[..., R, R] of lane to lane.

    Raises BrokenInvariant where rows are of other entries: a level of Copies that the algorithm's `reads` leaves out.
    """
    place = np.asarray(owner, dtype=np.int64) * lanes + np.asarray(target, dtype=np.int64)
    if rows.shape[rows.ndim - place.ndim :] != place.shape:
        raise BrokenInvariant(f"rows {rows.shape} between lanes {place.shape}: are all levels of Copies in `reads`?")
    leading = rows.shape[: rows.ndim - place.ndim]
    found = np.zeros((*leading, lanes, lanes), dtype=np.int64)
    flat = np.ascontiguousarray(rows).reshape(-1, place.size) if place.size else np.zeros((0, 0), dtype=np.int64)
    _add_up(flat, place.ravel(), found.reshape(-1, lanes * lanes))
    return found


@njit
def _add_up(rows: Any, place: Any, found: Any) -> None:
    """rows int64[n, entries], place int64[entries] -> added to found int64[n, places]."""
    for number in range(rows.shape[0]):
        for entry in range(rows.shape[1]):
            found[number, place[entry]] += rows[number, entry]


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
