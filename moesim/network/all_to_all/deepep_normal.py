"""DeepEP normal kernels (training, prefill): one copy per (token, node) over the sender's rail, then NVLink.

A row goes to the GPU on the same rail of every node that holds one of its experts, which forwards it to the GPUs that
need it; combine is the reverse, with a reduction in the forwarder. Both hops are pipelined in chunks, so their flows
run together. Source: deepseek-ai/DeepEP README (normal kernels), DeepSeek-V3 report section 3.2.2.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import Stages, turned_round
from moesim.network.all_to_all.hops import forwarded, rail_hop
from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class DeepEPNormal:
    """One copy per node between nodes, one per device inside them."""

    name = kernel = "deepep_normal"
    deduplicates = "node"
    phases = 2

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Rail hop and forwarding together; inside the own node rows go straight."""
        rail = rail_hop(group, copies.nodes, row_bytes)
        return (Flows.join(rail, Flows.between(group, forwarded(group, copies.devices) * row_bytes)),)

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """The same hops backwards. A forwarder's reduction is released with the rows it reduces."""
        return turned_round(self.dispatch(copies, row_bytes, group), group)
