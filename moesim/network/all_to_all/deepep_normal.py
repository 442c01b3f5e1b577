"""DeepEP normal kernels (training, prefill): one copy per (token, node) over the sender's rail, then NVLink.

A row goes to the GPU on the same rail of every node that holds one of its experts, which forwards it to the GPUs that
need it; combine is the reverse, with a reduction in the forwarder. Both hops are pipelined in chunks, so their flows
run together. Source: deepseek-ai/DeepEP README (normal kernels), DeepSeek-V3 report section 3.2.2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class DeepEPNormal:
    """One copy per node between nodes, one per device inside them."""

    name = "deepep_normal"
    deduplicates = "node"
    phases = 2

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Flows:
        """Rail hop, then forwarding; inside the own node rows go straight."""
        return Flows.join(*_hops(copies, row_bytes, group))

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Flows:
        """The same hops backwards. A forwarder's reduction is released with the rows it reduces."""
        return Flows.join(*(_reversed(hop, group) for hop in _hops(copies, row_bytes, group)))


def _hops(copies: Copies, row_bytes: int, group: Group) -> tuple[Flows, Flows]:
    """(between nodes, inside nodes); forwarded rows are summed over the owners that share a forwarder's rail."""
    own = group.node_of_lane
    lane, node = np.nonzero((copies.nodes > 0) & (np.arange(copies.nodes.shape[1])[None, :] != own[:, None]))
    peers = group.rail_peer[lane, node]
    rail = Flows(
        lane.astype(np.int32), group.devices[lane], peers, (copies.nodes[lane, node] * row_bytes).astype(np.int64)
    )
    forwarded = np.zeros_like(copies.devices)
    np.add.at(forwarded, (_forwarder(group), np.arange(len(own))[None, :]), copies.devices)
    return rail, Flows.between(group, forwarded * row_bytes)


def _forwarder(group: Group) -> npt.NDArray[np.int32]:
    """int32[R, R]: the lane that brings a's rows to b: the one on a's rail in b's node (a itself at home)."""
    peers = group.rail_peer[:, group.node_of_lane]
    return group.lane_of[peers]


def _reversed(flows: Flows, group: Group) -> Flows:
    owner = group.lane_of[flows.destination]
    return Flows(owner, flows.destination, flows.source, flows.bytes)
