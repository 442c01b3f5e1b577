"""NCCL all-to-all: grouped pairwise sends and receives, one row per (token, expert), nothing merged.

All rows for a peer are one message, so a rank pays for as many messages as it has peers; copying takes SMs. Source:
NCCL's grouped ncclSend/ncclRecv; Megatron's `alltoall` token dispatcher permutes one row per choice.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll, Stages
from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class Pairwise(AllToAll):
    """Every pair of lanes exchanges its rows directly."""

    name = "nccl"
    direct = "pairs"

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """One flow per pair."""
        return (Flows.between(group, copies.pairs * row_bytes),)
