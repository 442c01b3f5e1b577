"""Torus: nodes in a grid of `dims` that closes on itself; a node's ports together are its links to its neighbours.

Every direction of every dimension has an even share of them. Traffic corrects one coordinate after the other, the
shorter way round (dimension order; Dally, Towles: Principles and practices of interconnection networks, chapter 8).
"""

from __future__ import annotations

from math import prod

import numpy as np

from moesim.errors import BadInput
from moesim.hardware.blueprint import Ints
from moesim.hardware.fabrics.kind import Ground, Kind, Tickets, Wiring
from moesim.hardware.schema import FabricSection

KEYS = frozenset({"dims"})
MOST_HOPS = 12  # of a way; a player takes 16 links with the ports and what kernels add


def wire(ground: Ground) -> Wiring:
    """Raises BadInput where the grid has another number of nodes, or ways are too long."""
    dims = _checked(ground)
    place = np.stack(np.unravel_index(np.arange(ground.leaves), dims)).astype(np.int32)
    number = np.arange(ground.leaves * 2 * len(dims), dtype=np.int32).reshape(ground.leaves, len(dims), 2)

    def hops(a: Ints, b: Ints, ticket: Tickets) -> list[Ints]:
        at, found = a, []
        for dim, size in enumerate(dims):
            ahead = (place[dim][b] - place[dim][a]) % size
            forth = ahead <= size - ahead
            left = np.where(forth, ahead, size - ahead)
            for step in range(size // 2):
                moves = left > step
                found.append(np.where(moves, number[at, dim, np.where(forth, 0, 1)], -1))
                at = np.where(moves, _next(place, dims, at, dim, np.where(forth, 1, -1)), at)
        return found

    share = ground.below / (2 * len(dims))
    links = [
        ground.link(f"leaf{node}/{sign}{dim}", "torus", f"leaf{node}", f"leaf{other}", share[node])
        for node in range(ground.leaves)
        for dim in range(len(dims))
        for sign, step in (("+", 1), ("-", -1))
        for other in (_next(place, dims, np.array(node), dim, np.array(step)),)
    ]
    return Wiring(links, hops)


def _next(place: Ints, dims: tuple[int, ...], at: Ints, dim: int, step: Ints) -> Ints:
    """The node one step on in a dimension."""
    moved = list(place[:, at])
    moved[dim] = (moved[dim] + step) % dims[dim]
    return np.asarray(np.ravel_multi_index(tuple(moved), dims), dtype=np.int32)


def _checked(ground: Ground) -> tuple[int, ...]:
    dims = tuple(ground.fabric.dims)
    if prod(dims) != ground.leaves or not dims:
        way_out = f"dims: [{ground.leaves}], or nodes: {prod(dims)}"
        what = f"dims {list(dims)} hold {prod(dims)} nodes, there are {ground.leaves}"
        raise BadInput(what, where=ground.where, way_out=way_out)
    if (longest := sum(size // 2 for size in dims)) > MOST_HOPS:
        what = f"ways of {longest} links, at most {MOST_HOPS}"
        raise BadInput(what, where=ground.where, way_out="more and shorter dims")
    return dims


def _seat(port: Ints, ports: int, fabric: FabricSection) -> Ints:
    return port // ports


KIND = Kind(_seat, wire, KEYS, lambda fabric: False)
