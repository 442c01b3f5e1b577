"""Dragonfly: groups of routers, all routers of a group joined, all groups joined by one pooled link a pair.

A router serves `nodes_per_leaf` nodes; the link between two groups hangs on a router of each, in turn. Rates are those
of a balanced dragonfly, where a router has as many ports for other groups as for nodes and twice as many inside its
group: inside, twice what its nodes send, over the other routers; between groups, what a group's nodes send, over the
other groups and `oversubscription`. `routing: minimal` takes the direct link of two groups; `valiant` goes over a third
one that a hash picks. Source: Kim, Dally, Scott, Abts: Technology-driven, highly-scalable dragonfly topology, ISCA 2008
(a = 2p = 2h).
"""

from __future__ import annotations

import numpy as np

from moesim.hardware.blueprint import Ints, Link
from moesim.hardware.fabrics.kind import Ground, Kind, Tickets, Wiring, by_node, plane

KEYS = frozenset({"oversubscription", "nodes_per_leaf", "routers_per_group", "routing", "queue_pairs"})


class _Groups:
    """group_of int32[S]; gate int32[G, G]: the router of a group on which its link to another hangs; local int32[S, S]
    and across int32[G, G]: numbers of links, -1 where there is none.
    """

    def __init__(self, ground: Ground) -> None:
        each = ground.fabric.routers_per_group
        self.group_of = np.arange(ground.leaves, dtype=np.int32) // each
        self.size = np.bincount(self.group_of)
        self.count = len(self.size)
        mine, other = np.indices((self.count, self.count), dtype=np.int32)
        self.gate = mine * each + (other - (other > mine)) % self.size[mine]
        near = self.group_of[:, None] == self.group_of[None, :]
        np.fill_diagonal(near, False)
        self.local = _numbered(near, 0)
        self.across = _numbered(~np.eye(self.count, dtype=np.bool_), int(near.sum()))

    def towards(self, router: Ints, group: Ints) -> tuple[list[Ints], Ints]:
        """Two hops from a router to a group, none where it is there, and the router that they end at."""
        own = self.group_of[router]
        leaves = own != group
        hops = [self.local[router, np.where(leaves, self.gate[own, group], router)], self.across[own, group]]
        return hops, np.where(leaves, self.gate[group, own], router)

    def third(self, home: Ints, goal: Ints, ticket: Tickets) -> Ints:
        """A group that is neither, where there are two different ones and a third."""
        if self.count < 3:
            return goal
        low, high = np.minimum(home, goal), np.maximum(home, goal)
        third = plane(ticket, self.count - 2)
        third = third + (third >= low)
        return np.where(home == goal, goal, third + (third >= high))


def wire(ground: Ground) -> Wiring:
    """To the router with the link, over it, and on inside the group; twice so by way of a third group."""
    groups = _Groups(ground)

    def hops(a: Ints, b: Ints, ticket: Tickets) -> list[Ints]:
        home, goal = groups.group_of[a], groups.group_of[b]
        over = groups.third(home, goal, ticket) if ground.fabric.routing == "valiant" else goal
        first, at = groups.towards(a, over)
        second, at = groups.towards(at, goal)
        return [*first, *second, groups.local[at, b]]

    return Wiring(list(_links(ground, groups)), hops)


def _numbered(exists: np.ndarray[tuple[int, int], np.dtype[np.bool_]], first: int) -> Ints:
    number = np.full(exists.shape, -1, dtype=np.int32)
    number[exists] = np.arange(first, first + exists.sum())
    return number


def _links(ground: Ground, groups: _Groups) -> list[Link]:
    total = np.bincount(groups.group_of, ground.below)
    inside = 2 * ground.below / np.maximum(groups.size - 1, 1)[groups.group_of]
    outside = np.minimum.outer(total, total) / max(groups.count - 1, 1) / ground.fabric.oversubscription
    local = [
        ground.link(f"leaf{a}/local{b}", "local", f"leaf{a}", f"leaf{b}", min(inside[a], inside[b]))
        for a, b in np.argwhere(groups.local >= 0)
    ]
    across = [
        ground.link(
            f"group{a}/global{b}", "global", f"leaf{groups.gate[a, b]}", f"leaf{groups.gate[b, a]}", outside[a, b]
        )
        for a, b in np.argwhere(groups.across >= 0)
    ]
    return [*local, *across]


KIND = Kind(by_node, wire, KEYS, lambda fabric: False)
