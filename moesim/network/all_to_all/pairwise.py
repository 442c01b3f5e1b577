"""NCCL all-to-all: grouped pairwise sends and receives, one row per (token, expert), nothing merged.

Source: NCCL's grouped ncclSend/ncclRecv; Megatron's `alltoall` token dispatcher permutes one row per choice.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import Stages, turned_round
from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class Pairwise:
    """Every pair of lanes exchanges its rows directly."""

    name = kernel = "nccl"
    deduplicates = "none"
    phases = 1

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """One flow per pair."""
        return (Flows.between(group, copies.pairs * row_bytes),)

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """The same rows the other way."""
        return turned_round(self.dispatch(copies, row_bytes, group), group)
