"""Bi-level all-to-all: a token goes to a node along its rail, once, and from there to its experts inside that node.

Two all-to-alls, one between nodes and one inside them, one after the other, each with one message per peer and on SMs.
Copies are merged per node. Source: SMILE, "Scaling Mixture-of-Experts with Efficient Bi-level Routing" (2022), where a
router for nodes and one for GPUs choose.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.all_to_all.hops import forwarded, rail_hop
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class BiLevel(AllToAll):
    """One copy per node between nodes, then one per chosen expert inside, as two stages."""

    name = "bilevel"
    deduplicates = "node"
    phases = 2
    reads = ("nodes", "pairs")

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Between nodes, then inside them; on the way back the forwarder adds up what leaves its node."""
        return rail_hop(group, copies.nodes), forwarded(group, copies.pairs)
