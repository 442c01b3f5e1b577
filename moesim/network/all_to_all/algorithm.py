"""What every expert all-to-all says of itself."""

from __future__ import annotations

from typing import Protocol

from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group

Stages = tuple[Flows, ...]  # a lane starts a stage when what the stage before brings to it has landed


class AllToAll(Protocol):
    """An algorithm: which flows carry a token's rows to its experts, and its results back.

    `deduplicates` says which copies are merged ("none", "device" or "node"); `phases` how many hops a row takes, which
    run together where the algorithm pipelines them and as stages where it does not; `kernel` whose constants
    (seconds before the first byte, SMs held, efficiency by tier) a cost profile's `communication` gives.
    """

    name: str
    kernel: str
    deduplicates: str
    phases: int

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Rows of `row_bytes` from their lanes to the lanes of their experts."""

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Results of `row_bytes` back to the lanes of their tokens."""


def turned_round(stages: Stages, group: Group) -> Stages:
    """The way back: last stage first, every flow the other way."""
    return tuple(flows.reversed(group) for flows in reversed(stages))
