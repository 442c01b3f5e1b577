"""What every expert all-to-all says of itself, and how combine follows from dispatch."""

from __future__ import annotations

from typing import Protocol

from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class AllToAll(Protocol):
    """An algorithm: which flows carry a token's rows to its experts, and its results back.

    `deduplicates` says which copies are merged ("none", "device" or "node"); `phases` how many dependent hops a row
    takes, which all algorithms here pipeline, so that each phase's flows run together.
    """

    name: str
    deduplicates: str
    phases: int

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Flows:
        """Rows of `row_bytes` from their lanes to the lanes of their experts."""

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Flows:
        """Results of `row_bytes` back to the lanes of their tokens."""
