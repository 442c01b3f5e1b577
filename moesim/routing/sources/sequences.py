"""Sequences: what a training job reads, as a number of different texts that come again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesim import streams
from moesim.routing.sources.source import Around, Experts, Tokens

SALT = "sequences"


@dataclass(frozen=True)
class Sequences(Around):
    """Each simulated sequence is one of `number` of `inner`, by a hash; layers are counted from `first` on.

    A job of 2,048 GPUs reads 15,360 sequences a step, so that tokens are counted once for each of some, and a
    micro-batch is the sum of those that its ranks read.
    """

    number: int
    first: int = 0

    @property
    def name(self) -> str:
        """As in RoutingSource."""
        return f"{self.inner.name}, {self.number} sequences"

    @property
    def notes(self) -> tuple[str, ...]:
        """As in RoutingSource."""
        one = f"routing: each sequence of the job is one of {self.number} different ones, picked by a hash"
        return (*self.inner.notes, one)

    @property
    def moe_layers(self) -> int:
        """As in RoutingSource."""
        return self.inner.moe_layers - self.first

    def read(self, request: Tokens) -> Tokens:
        """int64[...] simulated sequences -> int64[...] below `number`."""
        ticket = streams.hash_ints(streams.key(SALT), request) >> np.uint64(11)
        found: Tokens = ticket.astype(np.int64) % self.number
        return found

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """As in RoutingSource."""
        return self.inner.experts(self.first + layer, self.read(request), position)
