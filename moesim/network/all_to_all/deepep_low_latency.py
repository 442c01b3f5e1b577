"""DeepEP low-latency kernels (decode): one message per (token, expert), put by RDMA, over NVLink inside a node.

Source: deepseek-ai/DeepEP README and `nvshmemi_get_p2p_ptr` (NVLink for same-node peers since June 2025). No
deduplication: the traffic is that of pairwise exchange, and its kernels hold no SMs between sending and receiving.
"""

from __future__ import annotations

from moesim.network.all_to_all.pairwise import Pairwise


class DeepEPLowLatency(Pairwise):
    """Pairwise exchange with its own constants."""

    name = kernel = "deepep_low_latency"
