"""A node of a schedule: what is done in which layer with which part of a batch, and what it follows."""

from __future__ import annotations

from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple


class Verb(IntEnum):
    """What a rank does. Attention is one node, or prepared (projections) and then attended to in two. GATHER brings a
    shared expert that is spread over a tensor group the tokens of all of it, EMBEDDING adds up what the ranks of a
    group have looked up in their parts of the vocabulary; where there is no such group both take no time. GRADIENTS
    reduces those of a layer that every data-parallel rank has.
    """

    HOST = 0
    ATTENTION = 1
    ATTENTION_PREPARE = 2
    ATTENTION_CORE = 3
    ROUTER = 4
    GATHER = 5
    DISPATCH = 6
    SHARED = 7
    EXPERTS = 8
    COMBINE = 9
    MLP = 10
    HEAD = 11
    OPTIMIZER = 12
    EMBEDDING = 13
    GRADIENTS = 14


class Way(IntEnum):
    """Which pass of training a node is of: forward, forward once more (recomputed), backward with both gradients in one
    go, or gradients of inputs and of weights apart.
    """

    FORWARD = 0
    REPLAY = 1
    BACKWARD = 2
    BACKWARD_DATA = 3
    BACKWARD_WEIGHT = 4


class Part(NamedTuple):
    """A cut of a batch by tokens: number `number` of `of` near-equal ones."""

    number: int
    of: int

    def overlaps(self, other: Part) -> bool:
        """Whether they have tokens in common, of a batch that both cut finely enough."""
        mine, theirs = (Fraction(part.number, part.of) for part in (self, other))
        return mine < Fraction(other.number + 1, other.of) and theirs < Fraction(self.number + 1, self.of)


WHOLE = Part(0, 1)
COMPUTE, COMM = "compute", "comm"
INTRA = "comm inside nodes"  # a stream of their own for transfers that stay there, in schedules that keep them apart
TRANSFERS = frozenset({Verb.DISPATCH, Verb.COMBINE, Verb.GRADIENTS})


class Node(NamedTuple):
    """One entry of a schedule, in program order: on every rank a stream runs its nodes first in, first out.

    after: earlier nodes, by number, whose results it needs. shares_sms: a transfer whose kernel holds SMs while others
    compute, or computing that has only the SMs that such kernels leave. part is a cut of micro-batch `micro_batch`.
    share: of its layer's gradients, those that are reduced.
    """

    verb: Verb
    layer: int
    part: Part
    after: tuple[int, ...] = ()
    way: Way = Way.FORWARD
    micro_batch: int = 0
    stream: str = COMPUTE
    shares_sms: bool = False
    share: float = 1.0
