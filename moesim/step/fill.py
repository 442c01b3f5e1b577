"""Refill: a plan's step built once, then filled with the values of one batch after the other.

The structure is that of `lower` for a batch of one token a part: tasks, edges and streams do not depend on the batch.
What does is worked out for all layers at once: prices of a part, which are the same in every layer; rows of experts;
bytes of pairs and start-ups of exchanges. `lower` through `evaluate` gives the same, to the tick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine import Beside, Pool, Skeleton, State, Values, play
from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.network import Group
from moesim.network.copies import Level
from moesim.routing.sources.source import PerToken, RoutingSource
from moesim.schedules import Part
from moesim.step.batch import Batch, uniform_batch
from moesim.step.cores import Ahead
from moesim.step.exchanges import Exchange
from moesim.step.fixed import ATTENTION, CONTEXTS, FixedPrices
from moesim.step.lower import check, lower
from moesim.step.plan import StepPlan
from moesim.step.prices import ExpertPrices
from moesim.step.rings import Rings, shared_copies, tensor_bytes
from moesim.step.spans import LayerTraffic, Lookup
from moesim.step.structure import COMBINE, Structure
from moesim.step.unpriced import unpriced
from moesim.units import to_ps

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
NOTHING: Int64s = np.zeros(0, dtype=np.int64)


class Routed(NamedTuple):
    """The part of a batch's values that its routing decides: experts int64[islands, layers, R] ps by part and stretch;
    size, alpha as in Values, of exchanges.
    """

    experts: dict[tuple[Part, float], Int64s]
    size: Int64s
    alpha: Int64s


class Refill:
    """Steps of inference by `plan`. Raises BadInput where a plan's steps need the graph player, saying why."""

    def __init__(self, plan: StepPlan) -> None:
        reason, way_out = needs_graph(plan)
        if reason:
            way_out = f"{way_out}, or single steps (run)"
            raise BadInput(f"these steps are lowered one by one: {reason}", way_out=way_out)
        self.plan, layout = plan, plan.layout
        self.pool = Pool(plan.fabric.capacity)
        self._islands = layout.islands()
        self._groups = [Group(plan.fabric.cluster, ranks) for ranks in self._islands]
        lowered = lower(unpriced(plan), (uniform_batch("decode", layout.world, plan.schedule.most_cuts, 1),))
        self.structure = Structure.of(plan, lowered)
        self._rings, self._shares = (
            [Rings(plan.fabric, group, width, self.pool) for group in self._groups]
            for width in (layout.tensor_parallel, layout.expert_tensor_parallel)
        )
        self._exchanges = [Exchange(plan, group) for group in self._groups if plan.exchanges]
        self._share = shared_copies(plan)
        reads: tuple[Level, ...] = plan.dispatch.algorithm.reads if self._exchanges else ()
        self._levels = {*reads, *([self._share] if self._share else [])}
        self._lookup = Lookup(plan, self._levels)
        stretches = {stretch for _, stretch in self.structure.experts}
        self._experts = {stretch: ExpertPrices(plan.ops, stretch) for stretch in stretches}
        self.fixed = FixedPrices(plan)
        pattern = self._patterns(lowered.graph.num_tasks)
        graph = replace(lowered.graph, coflow=pattern, coflows=())
        self.skeleton = Skeleton(graph, tuple(self.pool.patterns), pattern)
        self._speed = plan.speed(graph)
        self._beside: Beside | None = None
        self._last: Batch | None = None

    def _patterns(self, tasks: int) -> Int32s:
        """int32[tasks]: the pair list of each collective; of rings, any that it can have."""
        pattern = np.full((len(self._groups), tasks // len(self._groups)), -1, dtype=np.int32)
        for island, group in enumerate(self._groups):
            nothing = np.zeros(len(group.devices), dtype=np.int64)
            for (name, _), found in self.structure.exchanges.items():
                exchange = self._exchanges[island]
                stages = exchange.back if name == COMBINE else exchange.there
                for number, stage in enumerate(stages):
                    pattern[island, found[number :: len(stages)]] = self.pool.number(stage.coflow)
            for rings, kinds in ((self._rings, self.structure.rings), (self._shares, self.structure.shares)):
                for (name, _), found in kinds.items():
                    pattern[island, found] = rings[island].of(name, nothing).pattern
        return pattern.ravel()

    def elsewhere(self, placement: Placement, routing: RoutingSource) -> Refill:
        """The same step with its experts in other slots and other tokens; all else is shared."""
        other = copy(self)
        other.plan = replace(self.plan, placement=placement, routing=routing)
        other._lookup = Lookup(other.plan, self._levels)
        return other

    def play(self, values: Values) -> int:
        """Ticks until the last task ends. Raises Deadlock."""
        graph = self.skeleton.graph
        zero, pairs = State.at_zero(graph.num_ranks, len(graph.streams)), self.pool.pairs
        if self._speed is None:
            return play(self.skeleton, values, pairs, zero)[1]
        if self._beside is None or self._beside.pairs is not pairs:  # a batch may have rings that none had before
            self._beside = Beside.of(self.skeleton, pairs, self._speed)
        return self._beside.play(values, zero)[1]

    def fill(self, batch: Batch, routed: Routed | None = None) -> Values:
        """The values of a batch; with `routed` those of another batch's routing. Raises BadInput as `lower` does."""
        check(self.plan, (batch,))
        parts = self.parts_of(batch)
        known = routed or self._route(parts)
        islands, structure = len(self._groups), self.structure
        ps = np.zeros((islands, structure.count, len(self._islands[0])), dtype=np.int64)
        for key, tasks in structure.experts.items():
            ps[:, tasks] = known.experts[key][:, structure.layer[tasks]]
        for (name, part, stretch, mixer), tasks in structure.priced.items():
            ps[:, tasks] = self.fixed.ps(name, parts[part], stretch, mixer).reshape(islands, 1, -1)
        if not structure.rings:
            return Values(ps.ravel(), known.size, known.alpha)
        return self._with_rings(parts, ps.ravel(), known)

    def _with_rings(self, parts: Mapping[Part, Batch], ps: Int64s, known: Routed) -> Values:
        """Rings have the same bytes in every layer, which stand once after those of exchanges."""
        shape = (len(self._groups), self.structure.count)
        pattern, size_at = self.skeleton.pattern.reshape(shape).copy(), self.skeleton.size_at.reshape(shape).copy()
        alpha, sizes, place = known.alpha.reshape(shape).copy(), [known.size], len(known.size)
        for (name, part), tasks in self.structure.rings.items():
            own = tensor_bytes(self.plan, name, parts[part])
            for island, ranks in enumerate(self._islands):
                ring = self._rings[island].of(name, own[ranks])
                pattern[island, tasks], size_at[island, tasks], alpha[island, tasks] = ring.pattern, place, ring.alpha
                sizes.append(ring.size)
                place += len(ring.size)
        return Values(ps, np.concatenate(sizes), alpha.ravel(), pattern.ravel(), size_at.ravel())

    @property
    def sums(self) -> bool:
        """Whether ranks do one thing after the other, and wait for each other at exchanges alone: no part of a batch
        runs beside another, or slower beside a transfer, and no ring has bytes that depend on tokens.
        """
        return not self.structure.rings and len(self.structure.parts) == 1 and self._speed is None

    def unrouted(self, batch: Batch) -> int:
        """Ticks of all tasks whose prices no routing decides, on the rank that needs longest for them."""
        check(self.plan, (batch,))
        parts = self.parts_of(batch)
        priced = self.structure.priced.items()
        each = [self.fixed.ps(name, parts[part], stretch, mixer) * len(tasks)
                for (name, part, stretch, mixer), tasks in priced]  # fmt: skip
        return int(np.sum(each, axis=0).max())

    def ahead(self, batch: Batch, steps: int) -> tuple[Int64s, Sequence[Ahead]]:
        """`unrouted` of this batch and the next of a stretch of decodes, int64[n], as far as it is known at once, n at
        most `steps`; and what has to count the steps that were made. Only where steps are `sums`.
        """
        parts, constant, growing = self.parts_of(batch), np.zeros(batch.ranks, dtype=np.int64), []
        for (name, part, stretch, mixer), tasks in self.structure.priced.items():
            if name in CONTEXTS:
                return NOTHING, ()
            if name != ATTENTION:
                constant += self.fixed.ps(name, parts[part], stretch, mixer) * len(tasks)
                continue
            found = self.fixed.ahead(parts[part], stretch, mixer, steps)
            if found is None:
                return NOTHING, ()
            growing.append((found[0] * len(tasks), found[1]))
        if not growing:
            return NOTHING, ()
        known = min(len(ticks) for ticks, _ in growing)
        total = constant + np.sum([ticks[:known] for ticks, _ in growing], axis=0)
        return total.max(axis=1), [cores for _, cores in growing]

    def parts_of(self, batch: Batch) -> Mapping[Part, Batch]:
        """The cuts of a batch that the schedule has."""
        batch = self._last = batch.following(self._last)
        cuts = {of: batch.split(of) for of in sorted({part.of for part in self.structure.parts})}
        return {Part(index, of): part for of, parts in cuts.items() for index, part in enumerate(parts)}

    def route(self, batch: Batch) -> Routed:
        """Look the routing of all layers up, part by part."""
        return self._route(self.parts_of(batch))

    def _route(self, parts: Mapping[Part, Batch]) -> Routed:
        found = {part: self._looked_up(parts[part]) for part in self.structure.routed}
        size = np.zeros(self.skeleton.num_flows, dtype=np.int64)
        alpha = np.zeros(self.skeleton.graph.num_tasks, dtype=np.int64)
        for island in range(len(self._groups)):
            self._exchanged(island, {part: traffic[island] for part, traffic in found.items()}, size, alpha)
        experts = {
            (part, stretch): self._expert_ps(found[part], stretch) for part, stretch in self.structure.experts
        }  # fmt: skip
        return Routed(experts, size, alpha)

    def _looked_up(self, part: Batch) -> list[LayerTraffic]:
        """Island after island."""
        alone = len(self._groups) == 1
        return [
            self._lookup.of(part if alone else part.on_ranks(group.devices), group.node_of_lane)
            for group in self._groups
        ]

    def _exchanged(self, island: int, found: Mapping[Part, LayerTraffic], size: Int64s, alpha: Int64s) -> None:
        """Fill in the exchanges and shared rows of an island."""
        structure, base = self.structure, island * self.structure.count
        exchange = self._exchanges[island] if self._exchanges else None
        hops = {part: exchange.hops(traffic.copies) for part, traffic in found.items()} if exchange else {}
        for (name, part), tasks in structure.exchanges.items():
            assert exchange is not None
            of_stages = base + tasks.reshape(-1, len(exchange.there))
            layers, at = structure.layer[tasks[:: of_stages.shape[1]]], self.skeleton.size_at[of_stages]
            starts = exchange.fill(hops[part], layers, at, size, back=name == COMBINE)
            for stage, start in zip(of_stages.T, starts, strict=True):
                alpha[stage] = start
        for (op, part), tasks in structure.shares.items():
            self._shared(island, op, found[part], tasks, size, alpha)

    def _shared(
        self, island: int, op: str, traffic: LayerTraffic, tasks: Int64s, size: Int64s, alpha: Int64s
    ) -> None:  # fmt: skip
        """Rows handed to those who share the width of experts: one ring for each layer, as bytes differ."""
        assert self._share is not None
        dispatch = self.plan.dispatch
        row_bytes = dispatch.dispatch_row_bytes if op == "all_gather" else dispatch.combine_row_bytes
        arrived = getattr(traffic.copies, self._share).sum(axis=1) * row_bytes
        rings = [self._shares[island].of(op, arrived[layer]) for layer in self.structure.layer[tasks].tolist()]
        starts = np.array([ring.alpha for ring in rings], dtype=np.int64)
        numbers, sent = island * self.structure.count + tasks, np.stack([ring.size for ring in rings])
        alpha[numbers] = starts
        size[self.skeleton.size_at[numbers][:, None] + np.arange(sent.shape[1])] = sent

    def _expert_ps(self, found: list[LayerTraffic], stretch: float) -> Int64s:
        """int64[islands, layers, R] ps."""
        plan, by_rank = self.plan, np.stack([traffic.by_rank for traffic in found])
        if plan.layout.expert_parallel > 1 and plan.dispatch.algorithm.gathers:
            choices = np.broadcast_to(by_rank.sum(axis=(2, 3))[..., None], by_rank.shape[:3])
            work = plan.ops.experts(by_rank.reshape(-1, by_rank.shape[3]), False, choices.ravel())
            ps = to_ps(work.stretched(stretch).total).reshape(by_rank.shape[:3])
        else:
            ps = self._experts[stretch].ps(by_rank)
        return np.repeat(ps, plan.layout.expert_tensor_parallel, axis=2)


def needs_graph(plan: StepPlan) -> tuple[str, str]:
    """What a Refill of the plan cannot do, and a way out; "" twice where it can all."""
    algorithm, cluster = plan.dispatch.algorithm, plan.fabric.cluster
    reasons = {
        ("a training step", "mode: train"): plan.ops.spread.training,
        ("GPUs are of several kinds", "a cluster of one kind"): bool(plan.others),
        (f"tokens travel with {algorithm.name}", "another comm.dispatch"): algorithm.travels,
        ("messages are divided over queue pairs", "a topology without queue pairs"): bool(cluster.more_paths),
        ("links state a latency", "a topology without latency"): bool(np.any(cluster.link_latency > 0)),
        ("a router decides, and its own work is priced", "recorded routing, without routing.router"): not isinstance(
            plan.routing, PerToken
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), ("", ""))
