"""NCCL all-to-all: grouped pairwise sends and receives, one row per (token, expert), nothing merged.

All rows for a peer are one message, so a rank pays for as many messages as it has peers; copying takes SMs. Source:
NCCL's grouped ncclSend/ncclRecv; Megatron's `alltoall` token dispatcher permutes one row per choice.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class Pairwise(AllToAll):
    """Every pair of lanes exchanges its rows directly."""

    name = "nccl"

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Straight."""
        return (copies.pairs,)
