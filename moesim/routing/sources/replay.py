"""Replay: a simulated request takes the place of a recorded one, token by token."""

from __future__ import annotations

from copy import copy
from typing import Self

import numpy as np

from moesim import streams
from moesim.errors import BadInput
from moesim.routing.shape import RoutingShape, digest_of
from moesim.routing.sources.source import Experts, PerToken, Tokens
from moesim.routing.trace import RoutingTrace

EARLIER = 4  # a placement is planned on the first of so many parts of a recording
FIRST_PART = "the first quarter of the recorded requests, which the step replays beside the others"


class Recording:
    """A trace laid out for lookups: expert uint16[layers, N, k], the tokens of a request side by side by position."""

    def __init__(self, trace: RoutingTrace, seed: int) -> None:
        index = trace.by_request
        self.expert = np.ascontiguousarray(trace.expert[index.order].transpose(1, 0, 2))
        self.start, self.length = index.start, index.length
        self._salt = streams.key("replay", seed)

    def rows(self, request: Tokens, position: Tokens) -> Tokens:
        """int64[T] simulated tokens -> int64[T] recorded rows: request by hash, position modulo its length."""
        which = (streams.hash_ints(self._salt, request) >> np.uint64(11)).astype(np.int64) % len(self.start)
        rows: Tokens = self.start[which] + position % self.length[which]
        return rows

    def first_part(self) -> Recording:
        """The first quarter of the requests, at least one."""
        part = copy(self)
        kept = -(-len(self.start) // EARLIER)
        part.start, part.length = self.start[:kept], self.length[:kept]
        return part


class Replay(PerToken):
    """Replays a trace on the model that it was recorded from. Raises BadInput for any other model."""

    basis = "recorded"
    planned_on = FIRST_PART
    notes: tuple[str, ...] = ()

    def __init__(self, trace: RoutingTrace, model: RoutingShape, seed: int) -> None:
        header = trace.header
        if header.digest != digest_of(model):
            recorded = f"{header.model} ({header.moe_layers} layers, top-{header.top_k} of {header.num_experts})"
            wanted = f"{model.name} ({len(model.moe_layers)} layers, top-{model.top_k} of {model.num_experts})"
            raise BadInput(
                f"was recorded from {recorded}, not from {wanted}",
                where=trace.where,
                way_out="transplant: true carries it over to this model (the result then says so)",
            )
        self.name, self.basis = f"trace of {header.model}", header.basis
        self.moe_layers, self.num_experts, self.top_k = header.moe_layers, header.num_experts, header.top_k
        self._recording = Recording(trace, seed)

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """request int64[T], position int64[T] -> uint16[T, k] of the recorded token that stands for each."""
        found: Experts = self._recording.expert[layer].take(self._recording.rows(request, position), axis=0)
        return found

    def earlier(self) -> Self:
        """The first quarter of the recording."""
        part = copy(self)
        part._recording = self._recording.first_part()
        return part
