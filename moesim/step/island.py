"""One expert-parallel group lowered: its micro-batches through the layers, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine import Join
from moesim.network import Coflow, Group, algorithms, groups
from moesim.network.all_to_all import Stages
from moesim.network.copies import Copies
from moesim.routing.routers import Chores
from moesim.routing.sources import Rows
from moesim.schedules import Step, Verb
from moesim.step.batch import Batch
from moesim.step.even import even_rows
from moesim.step.lowered import HOST, Recorder
from moesim.step.ops import ACTIVATION_BYTES
from moesim.step.plan import StepPlan
from moesim.step.traffic import Traffic, traffic, travelling
from moesim.step.work import Work

Edge = tuple[int, Join]


class Routing(NamedTuple):
    """A layer's rounds of traffic, one after the other, and what the router does beside them."""

    rounds: tuple[Traffic, ...]
    chores: Chores | None


class Island:
    """The ranks that hold all experts together and, per part of the batch, what its next task has to wait for.

    A part is a cut of the micro-batch that the schedule interleaves with the others (two-batch overlap has two).
    """

    def __init__(self, plan: StepPlan, recorder: Recorder, ranks: npt.NDArray[np.int32]) -> None:
        self.plan, self.recorder, self.ranks = plan, recorder, ranks
        self.group = Group(plan.fabric.cluster, ranks)
        self.node_of_rank = plan.fabric.cluster.node_of[ranks]
        self.moe_index = {layer: index for index, layer in enumerate(plan.model.moe_layers)}
        self.ready: dict[int, list[Edge]] = {}
        self.routed: dict[int, tuple[int, Routing]] = {}
        self.stays: dict[int, npt.NDArray[np.int32]] = {}  # where the tokens of a part are, if they travel
        self.gathered: dict[int, list[Edge]] = {}  # what the shared expert of a part waits for, if it is spread
        self.prices: dict[tuple[str | bytes, int], Work] = {}
        self.received = np.zeros((len(plan.model.moe_layers), len(ranks)), dtype=np.int64)
        self.number = 0

    def host(self) -> None:
        """The host's share of the step, before the first kernel."""
        work = Work({HOST: np.full(len(self.ranks), self.plan.host_seconds)})
        task = self.recorder.compute(HOST, self.ranks, work, [], -1, 0)
        self.ready = {part: [(task, Join.LANE)] for part in range(self.plan.schedule.micro_batches)}

    def forward(self, parts: Sequence[Batch], number: int) -> None:
        """All layers of micro-batch `number`, then the head."""
        self._begin(number)
        self.stays = {}
        for step in self.plan.schedule.order(self.plan.model.num_layers):
            self._forward(step, parts[step.micro_batch])
        for part, batch in enumerate(parts):
            self._compute("head", self.plan.ops.head(batch), Step(Verb.ATTENTION, -1, part))

    def backward(self, parts: Sequence[Batch], number: int) -> None:
        """The forward order backwards: each transfer sends gradients the other way, each GEMM has two of them."""
        self._begin(number)
        for part, batch in enumerate(parts):
            work = self.plan.ops.backward("gemm", self.plan.ops.head(batch))
            self._compute("head_backward", work, Step(Verb.ATTENTION, -1, part))
        for step in reversed(tuple(self.plan.schedule.order(self.plan.model.num_layers))):
            self._backward(step, parts[step.micro_batch])

    def _begin(self, number: int) -> None:
        if number != self.number:
            self.prices, self.routed = {}, {}
            self.received[:] = 0
        self.number = number

    def last_tasks(self) -> list[int]:
        """The tasks at which the parts stand now."""
        return [task for edges in self.ready.values() for task, _ in edges]

    def _forward(self, step: Step, batch: Batch) -> None:
        moe = step.layer in self.moe_index
        match step.verb:
            case Verb.ATTENTION:
                self._attention(step, batch, moe)
            case Verb.DISPATCH if moe:
                self._count(step, batch)
                self._gather_early(step, batch)
                self._dispatch("dispatch", step, self._first(step, batch), self.plan.dispatch.dispatch_row_bytes)
            case Verb.SHARED if moe and self.plan.overlap_shared:
                self._shared(step, batch)
            case Verb.EXPERTS if moe:
                self._experts(step, batch, self._first(step, batch))
            case Verb.EXPERTS:
                self._gather_tokens(step, batch)
                self._compute("mlp", self._priced("mlp", self.plan.ops.dense, step, batch), step)
                self._sum_tokens(step, batch)
            case Verb.COMBINE if moe:
                self._shared_ring("reduce_scatter", step, batch)
                self._combine("combine", step, batch, self._first(step, batch))
                self._later_rounds(step, batch)

    def _backward(self, step: Step, batch: Batch) -> None:
        ops, moe = self.plan.ops, step.layer in self.moe_index
        match step.verb:
            case Verb.COMBINE if moe:
                self._recompute(step, batch)
                self._later_rounds_backward(step, batch)
                self._gather_early(step, batch)
                self._dispatch("combine_backward", step, self._first(step, batch), self.plan.dispatch.combine_row_bytes)
            case Verb.EXPERTS if moe:
                self._experts_backward(step, batch, self._first(step, batch))
            case Verb.EXPERTS:
                self._gather_tokens(step, batch)
                forward = self._priced("mlp", ops.dense, step, batch)
                self._compute("mlp_backward", ops.backward("gemm", forward), step)
                self._sum_tokens(step, batch)
            case Verb.SHARED if moe and self.plan.model.shared_intermediate:
                self._gather_late(step, batch)
                forward = self._priced("shared", ops.shared, step, batch)
                self._aside("shared_backward", ops.backward("gemm", forward), step)
            case Verb.DISPATCH if moe:
                self._shared_ring("reduce_scatter", step, batch)
                self._combine("dispatch_backward", step, batch, self._first(step, batch))
            case Verb.ATTENTION:
                self._attention_backward(step, batch, moe)

    def _attention(self, step: Step, batch: Batch, moe: bool) -> None:
        self._gather_tokens(step, batch)
        self._compute("attention", self._priced("attention", self.plan.ops.attention, step, batch), step)
        self._sum_tokens(step, batch)
        if moe:
            self._compute("router", self._router_share(step, batch), step)
            if not self.plan.overlap_shared:
                self._shared(step, batch)

    def _attention_backward(self, step: Step, batch: Batch, moe: bool) -> None:
        ops = self.plan.ops
        if moe:
            share = ops.backward("gemm", self._router_share(step, batch))
            self._compute("router_backward", share, step)
        self._gather_tokens(step, batch)
        again = self._priced("core", ops.core, step, batch) if "core_attn" in self.plan.recompute else Work()
        gradients = self._priced("attention_backward", ops.attention_backward, step, batch)
        self._compute("attention_backward", again + gradients, step)
        self._sum_tokens(step, batch)

    def _recompute(self, step: Step, batch: Batch) -> None:
        """Megatron's recomputed module `moe` replays the whole MoE layer, transfers included."""
        if "moe" in self.plan.recompute:
            self._gather_early(step, batch)
            self._dispatch("dispatch", step, self._first(step, batch), self.plan.dispatch.dispatch_row_bytes)
            self._shared(step, batch)
            self._experts(step, batch, self._first(step, batch))
            self._shared_ring("reduce_scatter", step, batch)
            self._combine("combine", step, batch, self._first(step, batch))
            self._later_rounds(step, batch)

    def _later_rounds(self, step: Step, batch: Batch) -> None:
        """Rounds after the first: each is routed, sent, computed and brought back once the one before is."""
        for sent in self._routing_of(step, batch).rounds[1:]:
            self._compute("router", self._router_share(step, batch), step)
            self._dispatch("dispatch", step, sent, self.plan.dispatch.dispatch_row_bytes)
            self._experts(step, batch, sent)
            self._combine("combine", step, batch, sent)

    def _later_rounds_backward(self, step: Step, batch: Batch) -> None:
        """The same from the last to the second."""
        for sent in reversed(self._routing_of(step, batch).rounds[1:]):
            self._dispatch("combine_backward", step, sent, self.plan.dispatch.combine_row_bytes)
            self._experts_backward(step, batch, sent)
            self._combine("dispatch_backward", step, batch, sent)
            share = self.plan.ops.backward("gemm", self._router_share(step, batch))
            self._compute("router_backward", share, step)

    def _shared(self, step: Step, batch: Batch) -> None:
        if self.plan.model.shared_intermediate:
            self._gather_late(step, batch)
            self._aside("shared", self._priced("shared", self.plan.ops.shared, step, batch), step)

    def _router_share(self, step: Step, batch: Batch) -> Work:
        """The router's work of one round: an even share of all."""
        routing, ops = self._routing_of(step, batch), self.plan.ops
        if routing.chores is None:
            return self._priced("router", ops.router, step, batch)
        return self._stretched(ops.router(batch, routing.chores).times(1 / len(routing.rounds)))

    def _experts(self, step: Step, batch: Batch, traffic: Traffic) -> None:
        real, even = self._expert_work(step, batch, traffic)
        self._compute("experts", self._stretched(real), step, self._stretched(even))

    def _experts_backward(self, step: Step, batch: Batch, traffic: Traffic) -> None:
        ops = self.plan.ops
        slots = self.plan.placement.num_slots // self.plan.placement.num_ranks
        sums = ops.accumulate_gradients(len(self.ranks), slots * ops.spread.expert_parameters)
        real, even = (ops.backward("experts", work) + sums for work in self._expert_work(step, batch, traffic))
        self._compute("experts_backward", self._stretched(real), step, self._stretched(even))

    def _expert_work(self, step: Step, batch: Batch, traffic: Traffic) -> tuple[Work, Work]:
        """Work with the rows as they are, and with the same rows spread evenly over the slots that they reach. Lanes
        that share the width of their experts compute the same rows.
        """
        rows, ways = self.plan.placement.by_rank(self.moe_index[step.layer], traffic.rows), self.plan.layout
        choices = int(rows.sum()) if self._exchanges and self.plan.dispatch.algorithm.gathers else None
        real, even = (np.repeat(one, ways.expert_tensor_parallel, axis=0) for one in (rows, even_rows(rows)))
        key = (even.tobytes(), step.micro_batch)  # many layers have the same rows when they are even
        if key not in self.prices:
            self.prices[key] = self.plan.ops.experts(even, batch.training, choices)
        return self.plan.ops.experts(real, batch.training, choices), self.prices[key]

    @property
    def _exchanges(self) -> bool:
        """Tokens are sent to ranks with other experts."""
        return self.plan.layout.expert_parallel > 1

    def _dispatch(self, name: str, step: Step, traffic: Traffic, row_bytes: int) -> None:
        """All-to-all to the ranks that hold the experts; then each hands its rows to those who share them."""
        if self._exchanges:
            stages = self.plan.dispatch.algorithm.dispatch(traffic.copies, row_bytes, self.group)
            self._transfer(name, stages, row_bytes, step)
        self._share_rows("all_gather", traffic.copies, row_bytes, step)

    def _combine(self, name: str, step: Step, batch: Batch, traffic: Traffic) -> None:
        """The way back: partial sums of those who share experts first, then the all-to-all."""
        row_bytes = self.plan.dispatch.combine_row_bytes
        self._share_rows("reduce_scatter", traffic.back, row_bytes, step)
        if self._exchanges:
            stages = self.plan.dispatch.algorithm.combine(traffic.back, row_bytes, self.group)
            self._transfer(name, stages, row_bytes, step)
        elif self.plan.ops.spread.residual == "replicated":
            self._sum_tokens(step, batch)

    def _share_rows(self, op: str, copies: Copies, row_bytes: int, step: Step) -> None:
        """All-gather or reduce-scatter of the rows that arrived, among the ranks that share the width of experts. A
        token that was sent nowhere is handed on once.
        """
        spread, algorithm = self.plan.ops.spread, self.plan.dispatch.algorithm
        if spread.expert_tensor == 1 or spread.residual == "replicated" or (self._exchanges and algorithm.gathers):
            return
        merged = not self._exchanges or algorithm.deduplicates != "none"
        arrived = (copies.devices if merged else copies.pairs).sum(axis=0)
        self._ring(op, spread.expert_tensor, arrived * row_bytes, step)

    def _first(self, step: Step, batch: Batch) -> Traffic:
        return self._routing_of(step, batch).rounds[0]

    def _count(self, step: Step, batch: Batch) -> None:
        """What a micro-batch brings to experts and ranks, all its parts and rounds together."""
        index, ways, recorder = self.moe_index[step.layer], self.plan.layout.expert_tensor_parallel, self.recorder
        for one in self._routing_of(step, batch).rounds:
            rows = np.repeat(self.plan.placement.by_rank(index, one.rows).sum(axis=1), ways)
            recorder.load[index] += one.load
            recorder.rank_load[index, self.ranks] += rows
            self.received[index] += rows
        most = recorder.received
        most[index, self.ranks] = np.maximum(most[index, self.ranks], self.received[index])

    def _routing_of(self, step: Step, batch: Batch) -> Routing:
        """The layer's routing; kept until the part reaches another layer, then dropped."""
        known = self.routed.get(step.micro_batch)
        if known is None or known[0] != step.layer:
            known = (step.layer, self._route(step.layer, step.micro_batch, batch))
            self.routed[step.micro_batch] = known
        return known[1]

    def _route(self, layer: int, part: int, batch: Batch) -> Routing:
        index = self.moe_index[layer]
        rows = self.plan.routing.rows(index, batch.token_request, batch.token_position, batch.token_rank)
        rounds = tuple(self._traffic_of(one, index, part) for one in rows.by_round())
        return Routing(rounds, rows.chores)

    def _traffic_of(self, rows: Rows, index: int, part: int) -> Traffic:
        where, ways = (self.plan.placement, index, self.node_of_rank), self.plan.layout.expert_tensor_parallel
        if not self.plan.dispatch.algorithm.travels:
            return traffic(rows.experts, rows, *where, ways, self.plan.replicas)
        found = travelling(rows.experts, rows, *where, self.stays.get(part), ways, self.plan.replicas)
        self.stays[part] = found.stays
        return found.traffic

    def _priced(self, name: str, op: Callable[[Batch], Work], step: Step, batch: Batch) -> Work:
        """Work that is the same in every layer of a micro-batch, priced once."""
        key = (name, step.micro_batch)
        if key not in self.prices:
            self.prices[key] = self._stretched(op(batch))
        return self.prices[key]

    def _stretched(self, work: Work) -> Work:
        """Compute beside communication kernels that hold SMs has only the others."""
        return work.stretched(self.plan.dispatch.compute_slowdown)

    def _compute(self, name: str, work: Work, step: Step, balanced: Work | None = None) -> None:
        """A task that waits for all its part stands at, and that the part's next task waits for."""
        part = step.micro_batch
        task = self.recorder.compute(name, self.ranks, work, self.ready[part], step.layer, self._label(part), balanced)
        self.ready[part] = [(task, Join.LANE)]

    def _aside(self, name: str, work: Work, step: Step) -> None:
        """A task beside the part's transfer. Its input precedes it on the compute stream, so it needs no edge of its
        own unless it was gathered; the part's next task waits for it too."""
        part = step.micro_batch
        after = self.gathered.pop(part, [])
        task = self.recorder.compute(name, self.ranks, work, after, step.layer, self._label(part))
        self.ready[part] = [*self.ready[part], (task, Join.LANE)]

    def _transfer(self, name: str, stages: Stages, row_bytes: int, step: Step) -> None:
        """The expert all-to-all; a destination goes on when its own bytes of a stage have landed."""
        algorithm = self.plan.dispatch.algorithm
        message_bytes = row_bytes if algorithm.message == "row" else None
        for flows in stages:
            self.recorder.sent[flows.source, flows.destination] += flows.bytes
            coflow = self.plan.fabric.coflow(algorithm.kernel(self.group), flows, self.group, message_bytes)
            self._wait_for(coflow, name, step)

    def _gather_tokens(self, step: Step, batch: Batch) -> None:
        """Before what is spread over a tensor group: every rank needs the tokens of all."""
        if self.plan.ops.spread.residual == "sliced":
            self._tensor_ring("all_gather", step, batch)

    def _sum_tokens(self, step: Step, batch: Batch) -> None:
        """After it: partial sums are added up, for each rank's slice of the tokens or for all of them."""
        sliced = self.plan.ops.spread.residual == "sliced"
        self._tensor_ring("reduce_scatter" if sliced else "all_reduce", step, batch)

    def _shared_ring(self, op: str, step: Step, batch: Batch) -> None:
        """Around a shared expert that is spread while tokens are sliced."""
        spread = self.plan.ops.spread
        if self.plan.model.shared_intermediate and spread.shared_ways > 1 and spread.residual == "sliced":
            self._tensor_ring(op, step, batch)
            if op == "all_gather":
                self.gathered[step.micro_batch] = self.ready[step.micro_batch]

    def _gather_early(self, step: Step, batch: Batch) -> None:
        """A shared expert that runs beside the dispatch has its tokens gathered before it."""
        if self.plan.overlap_shared:
            self._shared_ring("all_gather", step, batch)

    def _gather_late(self, step: Step, batch: Batch) -> None:
        """Where the shared expert runs beside no dispatch, its tokens are not gathered before one."""
        if not self.plan.overlap_shared:
            self._shared_ring("all_gather", step, batch)

    def _tensor_ring(self, op: str, step: Step, batch: Batch) -> None:
        """The residual stream inside each tensor-parallel group."""
        own = batch.tokens_of_rank * (ACTIVATION_BYTES * self.plan.model.hidden_size)
        self._ring(op, self.plan.layout.tensor_parallel, own, step)

    def _ring(self, op: str, width: int, part: npt.NDArray[np.int64], step: Step) -> None:
        """part int64[lanes] bytes, in groups of `width` consecutive lanes."""
        if width > 1:
            candidates = algorithms(op, self.group, groups(len(self.ranks), width), part)
            self._wait_for(self.plan.fabric.fastest(candidates, self.group)[1], op, step)

    def _wait_for(self, coflow: Coflow, name: str, step: Step) -> None:
        part = step.micro_batch
        task = self.recorder.transfer(name, self.ranks, coflow, self.ready[part], step.layer, self._label(part))
        self.ready[part] = [(task, Join.ARRIVAL)]

    def _label(self, part: int) -> int:
        """Parts of all micro-batches, numbered through."""
        return self.number * self.plan.schedule.micro_batches + part
