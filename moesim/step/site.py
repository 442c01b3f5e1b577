"""Site: one expert-parallel group of a step, and what its nodes have in common: batches, prices, routing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.network import Group
from moesim.routing.routers import Chores
from moesim.routing.sources import Rows
from moesim.schedules import Node, Part
from moesim.step.batch import Batch
from moesim.step.layer_prices import LAYER_PRICES
from moesim.step.lowered import Lowering
from moesim.step.plan import StepPlan
from moesim.step.traffic import Traffic, traffic
from moesim.step.work import Work

Key = tuple[object, ...]


class Routing(NamedTuple):
    """A layer's rounds of traffic, one after the other, and what the router does beside them."""

    rounds: tuple[Traffic, ...]
    chores: Chores | None


class Site:
    """An island of `Layout.islands` while it is lowered: the ranks that hold all experts together. What is the same in
    several nodes of a micro-batch is worked out once, and dropped when another micro-batch comes.
    """

    def __init__(
        self, plan: StepPlan, lowering: Lowering, ranks: npt.NDArray[np.int32], batches: tuple[Batch, ...]
    ) -> None:  # fmt: skip
        self.plan, self.lowering, self.ranks = plan, lowering, ranks
        self.group = Group(plan.fabric.cluster, ranks)
        self.moe_index = {layer: index for index, layer in enumerate(plan.model.moe_layers)}
        self._batches = batches
        self._number = -1
        self._parts: dict[int, tuple[Batch, ...]] = {}
        self._prices: dict[Key, Work] = {}
        self._routed: dict[Part, tuple[int, Routing]] = {}
        self._stays: dict[Part, npt.NDArray[np.int32]] = {}  # where the tokens of a part are, if they travel
        self._received, self._buffers = (
            np.zeros((len(batches), len(plan.model.moe_layers), len(ranks)), dtype=np.int64) for _ in range(2)
        )

    @cached_property
    def spans(self) -> bool:
        """Whether its ranks lie in several nodes."""
        return len(np.unique(self.group.node_of_lane)) > 1

    def batch(self, node: Node) -> Batch:
        """The tokens that a node is about."""
        if node.micro_batch != self._number:
            self._number = node.micro_batch
            for kept in (self._parts, self._prices, self._routed, self._stays):
                kept.clear()
        if node.part.of not in self._parts:
            self._parts[node.part.of] = self._batches[node.micro_batch].on_ranks(self.ranks).split(node.part.of)
        return self._parts[node.part.of][node.part.number]

    def price(self, name: str, node: Node) -> Work:
        """Work of a kind that is the same in every layer with the same mixer, on the SMs that the node has."""
        batch, stretch, ops = self.batch(node), self.plan.stretch(node), self.plan.ops.at(node.layer)
        return self.kept((name, ops.number, stretch), node, lambda: LAYER_PRICES[name](ops, batch).stretched(stretch))

    def kept(self, what: Key, node: Node, work: Callable[[], Work]) -> Work:
        """`work` of a node's part, worked out once."""
        key = (*what, node.part)
        if key not in self._prices:
            self._prices[key] = work()
        return self._prices[key]

    def routing(self, node: Node) -> Routing:
        """The layer's routing; kept until the part reaches another layer, then dropped."""
        batch = self.batch(node)
        known = self._routed.get(node.part)
        if known is None or known[0] != node.layer:
            known = (node.layer, self._route(node, batch))
            self._routed[node.part] = known
        return known[1]

    def _route(self, node: Node, batch: Batch) -> Routing:
        index = self.moe_index[node.layer]
        rows = self.plan.routing.rows(index, batch.token_request, batch.token_position, batch.token_rank)
        return Routing(tuple(self._traffic_of(one, index, node.part) for one in rows.by_round()), rows.chores)

    def _traffic_of(self, rows: Rows, index: int, part: Part) -> Traffic:
        nodes = self.plan.fabric.cluster.node_of[self.ranks]
        where, ways = (self.plan.placement, index, nodes), self.plan.layout.expert_tensor_parallel
        travels = self.plan.dispatch.algorithm.travels
        at = self._stays.get(part, rows.token_rank) if travels else None
        found = traffic(rows.experts, rows, *where, ways, self.plan.replicas, at)
        self._stays[part] = found.stays
        return found

    def count(self, node: Node) -> None:
        """What a micro-batch brings to experts and ranks, all its parts and rounds together."""
        index, ways, lowering = self.moe_index[node.layer], self.plan.layout.expert_tensor_parallel, self.lowering
        received = self._received[node.micro_batch, index]
        for one in self.routing(node).rounds:
            rows = np.repeat(self.plan.placement.by_rank(index, one.rows).sum(axis=1), ways)
            lowering.load[index] += one.load
            lowering.rank_load[index, self.ranks] += rows
            received += rows
        if chores := self.routing(node).chores:
            more = chores.held - self.plan.model.router_gemm().parameters
            lowering.gates[index] = max(lowering.gates[index], more)
            self._buffers[node.micro_batch, index] += sum(self.plan.ops.chores_here(chores).buffers)
        for most, mine in ((lowering.received, received), (lowering.buffers, self._buffers[node.micro_batch, index])):
            most[index, self.ranks] = np.maximum(most[index, self.ranks], mine)
