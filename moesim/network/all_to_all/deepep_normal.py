"""DeepEP normal kernels (training, prefill): one copy per (token, node) over the sender's rail, then NVLink.

A row goes to the GPU on the same rail of every node that holds one of its experts, which forwards it to the GPUs that
need it; combine is the reverse, with a reduction in the forwarder. Both hops are pipelined in chunks, so their flows
run together and start-up is small; copying and forwarding hold SMs (20 to 24 by default). A group inside one node takes
another kernel, with one hop over NVLink, one copy per (token, device). Source: deepseek-ai/DeepEP README (normal
kernels), csrc/kernels/intranode.cu and internode.cu; DeepSeek-V3 report section 3.2.2.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.all_to_all.hops import forwarded, rail_hop
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class DeepEPNormal(AllToAll):
    """One copy per node between nodes, one per device inside them."""

    name = "deepep_normal"
    kernels = ("deepep_normal", "deepep_intranode")
    versions = ("2025-02", "2025-04", "V2")
    usual = "2025-04"  # V2 was never fitted
    deduplicates = "node"
    phases = 2
    rail_first = True
    meets = True  # notify_dispatch and cached_notify end when all ranks have come, then rows leave (internode.cu)
    reads = ("nodes", "devices")

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Rail hop and forwarding together; inside the own node rows go straight."""
        return (rail_hop(group, copies.nodes) + forwarded(group, copies.devices),)

    def kernel(self, group: Group) -> str:
        """The kernel for one node, or the one for several."""
        return self._versioned(self.kernels[0 if group.node_of_lane.any() else 1])
