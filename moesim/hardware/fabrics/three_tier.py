"""A fat tree of three tiers: leaves of a few nodes, pods of a few leaves, cores between pods.

Each pod has a plane per spine, and a plane of cores joins the spines of its number (Al-Fares, Loukissas, Vahdat: A
scalable, commodity data center network architecture, SIGCOMM 2008). Leaves may be thinned out to the pod's spines by
`oversubscription`, pods to the cores by `core_oversubscription`.
"""

from __future__ import annotations

import numpy as np

from moesim.hardware.blueprint import Ints, Link
from moesim.hardware.fabrics.kind import Ground, Kind, Tickets, Wiring, by_node, plane

PODS = {"nodes_per_leaf", "leaves_per_pod", "core_oversubscription"}
KEYS = frozenset(PODS | {"oversubscription", "routing", "spines", "queue_pairs"})


def wire(ground: Ground) -> Wiring:
    """Up to the pod between its leaves, up to the cores between pods; the same plane all the way."""
    planes, each = ground.fabric.spines, ground.fabric.leaves_per_pod
    leaf, pod = ground.leaves * planes, -(-ground.leaves // each) * planes  # links of a tier, one way

    def hops(a: Ints, b: Ints, ticket: Tickets) -> list[Ints]:
        way, climbs, leaves_pod = plane(ticket, planes), a != b, a // each != b // each
        return [
            np.where(climbs, a * planes + way, -1),
            np.where(leaves_pod, leaf + a // each * planes + way, -1),
            np.where(leaves_pod, leaf + pod + b // each * planes + way, -1),
            np.where(climbs, leaf + 2 * pod + b * planes + way, -1),
        ]

    up, down = _links(ground, "up"), _links(ground, "down")
    return Wiring([*up, *down[leaf:], *down[:leaf]], hops)


def _links(ground: Ground, way: str) -> list[Link]:
    """Of all leaves, then of all pods."""
    fabric, each = ground.fabric, ground.fabric.leaves_per_pod
    leaves = ground.below / fabric.oversubscription / fabric.spines
    pods = np.add.reduceat(leaves, np.arange(0, len(leaves), each)) / fabric.core_oversubscription
    found = []
    for tier, rates in (("leaf", leaves), ("pod", pods)):
        for number, rate in enumerate(rates):
            for spine in range(fabric.spines):
                tag = "" if fabric.routing == "adaptive" else str(spine)
                top = f"pod{number // each}/spine{tag}" if tier == "leaf" else f"core{tag}"
                low = f"leaf{number}" if tier == "leaf" else f"pod{number}/spine{tag}"
                ends = (low, top) if way == "up" else (top, low)
                found.append(ground.link(f"{tier}{number}/{way}{tag}", f"{tier}_{way}", *ends, rate))
    return found


KIND = Kind(by_node, wire, KEYS, lambda fabric: False)
