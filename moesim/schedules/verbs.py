"""The verbs of a layer, and one step of a schedule."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Verb(IntEnum):
    """What a rank does with one micro-batch in one layer; a dense layer skips the four in the middle."""

    ATTENTION = 0
    DISPATCH = 1
    SHARED = 2
    EXPERTS = 3
    COMBINE = 4


class Step(NamedTuple):
    """One entry of a schedule, in program order: every rank and stream runs its entries first in, first out."""

    verb: Verb
    layer: int
    micro_batch: int
