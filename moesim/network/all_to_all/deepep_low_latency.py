"""DeepEP low-latency kernels (decode): one message per (token, expert), written straight into the peer's memory.

Nothing is merged: the bytes are those of pairwise exchange, in one phase. A message is a row, put by the GPU itself
(IBGDA); rows are so many that their cost is part of the rate reached. Kernels of the hook interface hold no SMs between
sending and receiving. Since June 2025 rows for the same node go over NVLink, before that out of one NIC and in by
another. Source: deepseek-ai/DeepEP README @3b1045d and @d8dd185, `nvshmemi_get_p2p_ptr`.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class DeepEPLowLatency(AllToAll):
    """One message per (token, expert), over RDMA between nodes and NVLink inside them."""

    name = "deepep_low_latency"
    kernels = ("deepep_low_latency", "deepep_low_latency_intranode")
    versions = ("2025-02", "2025-06")
    paths = ("nvlink", "rdma")
    message = "row"
    header_bytes = 16  # where a dispatched row comes from
    most_tokens = 256  # of a rank that its README advises to make room for; engines send more in pieces

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Straight."""
        return (copies.pairs,)

    def reserved_bytes(self, tokens: int, experts: int, width: int) -> int:
        """A message for each token of each expert, in which a row comes back in bf16 with scales of 128: to send and to
        receive, both twice, as one exchange begins before another's rows are read (csrc/config.hpp, LowLatencyLayout).
        """
        there, back = self.header_bytes + 2 * width, 2 * width + 4 * (width // 128)
        return 2 * experts * min(tokens, self.most_tokens) * (back + max(there, back))

    def kernel(self, group: Group) -> str:
        """The constants of one node where rows cross it over NVLink, or those of several."""
        return self._versioned(self.kernels[int(self.same_node == "nvlink" and not group.node_of_lane.any())])

    @property
    def same_node(self) -> str:
        """The path asked for, or what the version does."""
        return self.path or ("rdma" if self.version == "2025-02" else "nvlink")
