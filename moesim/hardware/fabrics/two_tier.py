"""Leaves and spines. `rails`: a leaf per rail (port r of every node); `leaves`: one for every few nodes.

Links: up and down of every leaf; one pooled uplink under adaptive routing, one for each spine where a hash picks
it, or messages are divided over all of them.
"""

from __future__ import annotations

import numpy as np

from moesim.hardware.blueprint import Ints, Link
from moesim.hardware.fabrics.kind import Ground, Kind, Tickets, Wiring, by_node, by_rail, plane
from moesim.hardware.schema import FabricSection

KEYS = frozenset({"oversubscription", "routing", "spines", "queue_pairs"})


def wire(ground: Ground) -> Wiring:
    """Up to a spine and down, where both ports hang on different leaves."""
    spines, down = ground.fabric.spines, ground.leaves * ground.fabric.spines

    def hops(a: Ints, b: Ints, ticket: Tickets) -> list[Ints]:
        climbs, spine = a != b, plane(ticket, spines)
        return [np.where(climbs, a * spines + spine, -1), np.where(climbs, down + b * spines + spine, -1)]

    return Wiring([*_links(ground, "up"), *_links(ground, "down")], hops)


def _links(ground: Ground, way: str) -> list[Link]:
    fabric, links = ground.fabric, []
    for leaf, below in enumerate(ground.below):
        share = below / fabric.oversubscription / fabric.spines
        for spine in range(fabric.spines):
            hashed = fabric.routing != "adaptive"
            top, name = (f"spine{spine}", f"leaf{leaf}/{way}{spine}") if hashed else ("spine", f"leaf{leaf}/{way}")
            ends = (f"leaf{leaf}", top) if way == "up" else (top, f"leaf{leaf}")
            links.append(ground.link(name, f"leaf_{way}", *ends, share))
    return links


def _pooled(fabric: FabricSection) -> bool:
    return fabric.spines == 1 or fabric.routing == "spray"


RAILS = Kind(by_rail, wire, KEYS, _pooled)
LEAVES = Kind(by_node, wire, KEYS | {"nodes_per_leaf"}, _pooled)
