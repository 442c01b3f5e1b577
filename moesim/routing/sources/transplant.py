"""Transplant: a recorded trace carried over to a model of another shape. An assumption, and always called one.

Layer l replays recorded layer l modulo L. Recorded expert j becomes a group of E'/E target experts under a permutation
drawn per target layer. A token's k' choices are distinct members of the groups of its recorded experts, taken in the
order of their weight, cycling; which members is a hash of (request, position, layer), those of the recorded token. So
each recorded token is carried over once, whoever replays it and however often, and a trace that was carried over before
and is replayed gives the same.
"""

from __future__ import annotations

import math
import mmap
from copy import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np

from moesim import streams
from moesim.compiled import njit
from moesim.errors import BadInput
from moesim.routing.shape import NO_EXPERT, RoutingShape
from moesim.routing.slots import streams_hash
from moesim.routing.sources.replay import FIRST_PART, Recorded, Recording
from moesim.routing.sources.source import Experts, Tokens
from moesim.routing.trace import RoutingTrace, TraceHeader

ORDERS = 512  # shuffles of the members of a group that the hash picks from
SAMPLE_TOKENS = 1024  # recorded tokens on which the notes count group-limit violations


class Carrier:
    """The map from recorded experts of shape (L, E, k) to experts of a model of shape (L', E', k')."""

    def __init__(self, header: TraceHeader, model: RoutingShape, seed: int, where: str = "") -> None:
        self.layers, self.experts, self.top_k = len(model.moe_layers), model.num_experts, model.top_k
        self.recorded_layers, self._recorded_k = header.moe_layers, header.top_k
        self._size = self.experts // header.num_experts
        _check(header, model, where)
        draw = [streams.stream(seed, "transplant", layer).permutation(self.experts) for layer in range(self.layers)]
        self._members = np.stack(draw).reshape(self.layers, header.num_experts, self._size).astype(np.uint16)
        rng = streams.stream(seed, "transplant", "members")
        self._orders = rng.permuted(np.tile(np.arange(self._size), (ORDERS, 1)), axis=1)
        self._salt = streams.key("transplant", seed)

    def carry_all(self, recorded: Experts, request: Tokens, position: Tokens) -> Experts:
        """recorded uint16[T, L, k], request, position int64[T] -> uint16[T, L', k'] in all target layers."""
        found = np.empty((len(recorded), self.layers, self.top_k), dtype=np.uint16)
        ticket = streams.hash_ints(self._salt, request, position)
        carried(np.ascontiguousarray(recorded), ticket, self._members, self._orders, found)
        return found


@njit
def carried(recorded: Any, ticket: Any, members: Any, orders: Any, found: Any) -> None:
    """recorded uint16[T, L, k], ticket uint64[T] hashes of (request, position), members uint16[L', E, size], orders
    int64[ORDERS, size] -> fills found uint16[T, L', k']: of choice c of the recorded ones the member of its group that
    a hash of (ticket, layer, c) orders next.
    """
    choices, last = recorded.shape[2], np.uint64(orders.shape[0] - 1)  # as many orders as a power of two
    for token in range(found.shape[0]):
        for layer in range(found.shape[1]):
            here = streams_hash(ticket[token], np.uint64(layer))
            for choice in range(min(choices, found.shape[2])):
                first = recorded[token, layer % recorded.shape[1], choice]
                order = orders[streams_hash(here, np.uint64(choice)) & last]
                for turn, place in enumerate(range(choice, found.shape[2], choices)):
                    found[token, layer, place] = NO_EXPERT if first == NO_EXPERT else members[layer, first, order[turn]]


class CarriedOver(Recording):
    """A Recording whose tokens are carried over to another shape when they are first asked for, then kept."""

    def __init__(self, trace: RoutingTrace, carrier: Carrier, seed: int) -> None:
        super().__init__(trace, seed)
        self._recorded, self._carrier, order = self._table, carrier, trace.by_request.order
        self._table = _in_small_pages((len(order), carrier.layers, carrier.top_k))
        self._known = np.zeros(len(order), dtype=np.bool_)
        self._request, self._position = (column[order].astype(np.int64) for column in (trace.request, trace.position))

    def table(self, rows: Tokens | None = None) -> Experts:
        """As in Recording; carries over what is new among the rows."""
        if rows is not None:
            new = np.unique(rows[~self._known[rows]])
            if len(new):
                carry = self._carrier.carry_all
                self._table[new] = carry(self._recorded[new], self._request[new], self._position[new])
                self._known[new] = True
        return self._table


class Transplant(Recorded):
    """Replays a trace on a model of another shape. Raises BadInput where E' is no multiple of E, or k' > k E'/E."""

    basis = "transplanted, assumed"
    planned_on = FIRST_PART

    def __init__(self, trace: RoutingTrace, model: RoutingShape, seed: int) -> None:
        header = trace.header
        self.name = f"trace of {header.model} on {model.name}"
        self.moe_layers, self.num_experts, self.top_k = len(model.moe_layers), model.num_experts, model.top_k
        self._carrier = Carrier(header, model, seed, trace.where)
        self.recording = CarriedOver(trace, self._carrier, seed)
        self.violations = self._sampled_violations(trace, model)
        there = f"{header.moe_layers} layers, top-{header.top_k} of {header.num_experts} of {header.model}"
        here = f"{self.moe_layers} layers, top-{self.top_k} of {self.num_experts}"
        note = f"routing: transplanted, assumed ({there} carried over to {here})"
        self.notes = (note, *_limit_note(self.violations, model))

    def earlier(self) -> Self:
        """The first quarter of the recording, carried over in the same way."""
        part = copy(self)
        part.recording = self.recording.first_part()
        return part

    def _sampled_violations(self, trace: RoutingTrace, model: RoutingShape) -> float:
        """The share of (token, layer) that touch more groups than the model's router allows."""
        if model.topk_groups >= model.num_groups:
            return 0.0
        head = trace.window(0, SAMPLE_TOKENS)
        return count_violations(carry_over(head, self._carrier), model) / (head.tokens * self.moe_layers)


def transplant(trace: RoutingTrace, model: RoutingShape, seed: int) -> RoutingTrace:
    """The trace carried over, token by token, as a trace of `model`; weights and logits are left behind."""
    header = trace.header
    carrier = Carrier(header, model, seed, trace.where)
    expert = carry_over(trace, carrier)
    evidence = {"transplanted_from": header.model, "seed": seed, "recorded_evidence": dict(header.evidence)}
    if model.topk_groups < model.num_groups:
        evidence["group_limit_violations"] = count_violations(expert, model)
        evidence["token_layers"] = trace.tokens * carrier.layers
    return replace(
        trace,
        header=replace(
            header,
            model=model.name,
            moe_layers=carrier.layers,
            num_experts=carrier.experts,
            top_k=carrier.top_k,
            origin=f"transplanted from {header.model}: {header.origin}",
            basis="transplanted, assumed",
            evidence=evidence,
        ),
        expert=expert,
        weight=None,
        logits=None,
        rounds=None,
    )


def carry_over(trace: RoutingTrace, carrier: Carrier) -> Experts:
    """uint16[N, L', k']: every recorded token in every layer of the target."""
    return carrier.carry_all(trace.expert, trace.request.astype(np.int64), trace.position.astype(np.int64))


def count_violations(expert: Experts, model: RoutingShape) -> int:
    """uint16[N, layers, k] -> how many (token, layer) touch more than `topk_groups` groups."""
    group = np.sort(expert // (model.num_experts // model.num_groups), axis=-1)
    touched = 1 + (np.diff(group, axis=-1) != 0).sum(axis=-1)
    return int((touched > model.topk_groups).sum())


def _in_small_pages(shape: tuple[int, ...]) -> Experts:
    """Zeros, uint16, for rows that are written here and there: numpy asks for huge pages, of which each of the first
    few dozen rows would clear one, 2 MiB, before a first step is done.
    """
    size = math.prod(shape)
    pages = mmap.mmap(-1, max(2 * size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype=np.uint16, count=size).reshape(shape)


def _check(header: TraceHeader, model: RoutingShape, where: str) -> None:
    if model.num_experts % header.num_experts:
        raise BadInput(
            f"{model.num_experts} experts of {model.name} are no multiple of the {header.num_experts} recorded ones",
            where=where,
            way_out="a trace of a model with fewer experts, or routing: {balanced: true}",
        )
    if model.top_k > header.top_k * (model.num_experts // header.num_experts):
        most = header.top_k * (model.num_experts // header.num_experts)
        raise BadInput(
            f"top-{model.top_k} of {model.name}: the recorded top-{header.top_k} gives only {most} experts", where=where
        )


def _limit_note(violations: float, model: RoutingShape) -> tuple[str, ...]:
    if not violations:
        return ()
    limit = f"{model.topk_groups} of {model.num_groups} groups"
    return (
        f"routing: {violations:.1%} of sampled token-layers break the router's limit of {limit}, which is not enforced",
    )
