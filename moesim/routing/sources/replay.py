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
    """A trace laid out for lookups: a table uint16[N, layers, k] in which a request's tokens stand side by side."""

    def __init__(self, trace: RoutingTrace, seed: int) -> None:
        index = trace.by_request
        in_order = bool(np.all(index.order[1:] > index.order[:-1]))
        self._table: Experts = trace.expert if in_order else trace.expert[index.order]
        self.start, self.length = index.start, index.length
        self._salt = streams.key("replay", seed)

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, layers, k."""
        tokens, layers, top_k = self._table.shape
        return tokens, layers, top_k

    def table(self, rows: Tokens | None = None) -> Experts:
        """uint16[N, layers, k], of which `rows` int64[T] (None: those asked for before) may be read."""
        return self._table

    def requests(self, request: Tokens) -> Tokens:
        """int64[T] simulated requests -> the recorded ones that stand for them, numbered by `start`: a hash."""
        return (streams.hash_ints(self._salt, request) >> np.uint64(11)).astype(np.int64) % len(self.start)

    def rows(self, request: Tokens, position: Tokens) -> Tokens:
        """int64[T] simulated tokens -> int64[T] rows of the table: request by hash, position modulo its length."""
        return self.rows_of(self.requests(request), position)

    def rows_of(self, which: Tokens, position: Tokens) -> Tokens:
        """int64[T] tokens of recorded requests -> int64[T] rows of the table."""
        rows: Tokens = self.start[which] + position % self.length[which]
        return rows

    def layer(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """int64[T] simulated tokens -> uint16[T, k] in one layer."""
        rows = self.rows(request, position)
        found: Experts = self.table(rows)[rows, layer]
        return found

    def first_part(self) -> Self:
        """The first quarter of the requests, at least one."""
        part = copy(self)
        kept = -(-len(self.start) // EARLIER)
        part.start, part.length = self.start[:kept], self.length[:kept]
        return part


class Recorded(PerToken):
    """A source whose tokens stand in a Recording."""

    recording: Recording

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """request int64[T], position int64[T] -> uint16[T, k] of the recorded token that stands for each."""
        return self.recording.layer(layer, request, position)


class Replay(Recorded):
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
        self.recording = Recording(trace, seed)

    def earlier(self) -> Self:
        """The first quarter of the recording."""
        part = copy(self)
        part.recording = self.recording.first_part()
        return part
