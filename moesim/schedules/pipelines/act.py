"""What a rank does in a pipeline: a pass of one micro-batch through one stage."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Pass(IntEnum):
    """Forward; backward with both gradients; gradients of inputs and of weights apart."""

    F = 0
    B = 1
    D = 2
    W = 3


class Act(NamedTuple):
    """A pass of micro-batch `micro_batch` through stage `stage`, counted along the way of that micro-batch."""

    what: Pass
    micro_batch: int
    stage: int

    def __str__(self) -> str:
        return f"{self.what.name}{self.micro_batch}@{self.stage}"


Slot = tuple[Act, ...]  # acts that a rank does at once: one, or a forward and a backward that overlap
Orders = tuple[tuple[Slot, ...], ...]  # of each rank, in the order in which it does them
