"""Refill: a plan's step built once, then filled with the values of one batch after the other.

The structure is that of `lower` for a batch of one token a part: tasks, edges and streams do not depend on the batch.
What does is worked out for all layers at once: prices of a part, which are the same in every layer; rows of experts;
bytes of pairs and start-ups of exchanges. `lower` through `evaluate` gives the same, to the tick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.costs import CommunicationCost
from moesim.engine import Pairs, Skeleton, State, TaskGraph, Values, play
from moesim.errors import BadInput
from moesim.hardware import Cluster
from moesim.network import Flows, Group
from moesim.network.pattern import Pattern
from moesim.network.ports import OUT
from moesim.routing.sources.source import PerToken
from moesim.schedules import Part
from moesim.step.batch import Batch, uniform_batch
from moesim.step.layer_prices import LAYER_PRICES
from moesim.step.lower import check, lower
from moesim.step.lowered import HOST
from moesim.step.ops import LayerOps
from moesim.step.plan import StepPlan
from moesim.step.prices import ExpertPrices
from moesim.step.spans import Lookup
from moesim.step.unpriced import unpriced
from moesim.step.work import Work
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
Kind = tuple[str, Part, float, int]  # of tasks that cost the same: name, part, stretch, mixer of their layers
ATTENTION, EXPERTS, DISPATCH, COMBINE = "attention", "experts", "dispatch", "combine"
MIXED: Final = (ATTENTION, "attention_prepare", "attention_core")  # names of tasks that ask which mixer a layer has
CONTEXTS: Final = (ATTENTION, "attention_core")  # names of tasks whose price asks for contexts beside tokens
KEPT = 4096  # prices of parts by their numbers of tokens


class Routed(NamedTuple):
    """The part of a batch's values that its routing decides: experts int64[layers, R] ps by part; size, alpha as in
    Values.
    """

    experts: dict[tuple[Part, float], Int64s]
    size: Int64s
    alpha: Int64s


class Refill:
    """Steps of inference by `plan`. Raises BadInput where a plan's steps need the graph player, saying why."""

    def __init__(self, plan: StepPlan) -> None:
        if reason := needs_graph(plan):
            raise BadInput(f"these steps are lowered one by one: {reason}", way_out="lower, then evaluate")
        self.plan, self._lookup = plan, Lookup(plan)
        self._startup_of: dict[tuple[int, int, int], float] = {}
        self._fixed: dict[tuple[str, int, float, bytes, bytes], Int64s | tuple[Work, Work]] = {}
        self._ops = [plan.ops.with_mixer(number) for number in range(len(plan.model.mixers))]
        lowered = lower(unpriced(plan), (uniform_batch("decode", plan.layout.world, plan.schedule.cuts, 1),))
        self.group = Group(plan.fabric.cluster, plan.layout.islands()[0])
        kinds: dict[Kind, list[int]] = {}
        for task, (name, node) in enumerate(zip(lowered.graph.name, lowered.nodes, strict=True)):
            mixer = plan.ops.at(node.layer).number if name in MIXED else 0
            kinds.setdefault((name, node.part, plan.stretch(node), mixer), []).append(task)
        self._tasks = {kind: np.array(tasks, dtype=np.int64) for kind, tasks in kinds.items()}
        prices = {stretch: ExpertPrices(plan.ops, stretch) for name, _, stretch, _ in kinds if name == EXPERTS}
        self._experts = {(part, stretch): prices[stretch] for name, part, stretch, _ in kinds if name == EXPERTS}
        self.skeleton = self._skeleton(lowered.graph)

    def _skeleton(self, graph: TaskGraph) -> Skeleton:
        lanes = len(self.group.devices)
        all_pairs = Flows.between(self.group, np.ones((lanes, lanes), dtype=np.int64))
        pattern = np.full(graph.num_tasks, -1, dtype=np.int32)
        patterns: list[Pattern] = []
        kernel = self.plan.dispatch.algorithm.kernel(self.group)
        for name, flows in ((DISPATCH, all_pairs), (COMBINE, all_pairs.reversed(self.group))):
            coflow = self.plan.fabric.coflow(kernel, flows, self.group)
            for (known, *_), tasks in self._tasks.items():
                pattern[tasks] = len(patterns) if known == name else pattern[tasks]
            patterns.append(Pattern.of(coflow))
        return Skeleton(replace(graph, coflow=pattern, coflows=()), tuple(patterns), pattern)

    @cached_property
    def pairs(self) -> Pairs:
        """The pair lists on the plan's fabric."""
        return self.skeleton.pairs(self.plan.fabric.capacity)

    def play(self, values: Values) -> int:
        """Ticks until the last task ends. Raises Deadlock."""
        graph = self.skeleton.graph
        zero = State.at_zero(graph.num_ranks, len(graph.streams))
        return play(self.skeleton, values, self.pairs, zero)[1]

    def fill(self, batch: Batch, routed: Routed | None = None) -> Values:
        """The values of a batch; with `routed` those of another batch's routing. Raises BadInput as `lower` does."""
        check(self.plan, (batch,))
        parts = self.parts_of(batch)
        known = routed or self.route(batch)
        graph, lanes = self.skeleton.graph, len(self.group.devices)
        ps = np.zeros((graph.num_tasks, lanes), dtype=np.int64)
        for (name, part, stretch, mixer), tasks in self._tasks.items():
            if name == EXPERTS:
                ps[tasks] = known.experts[part, stretch]
            elif name not in (DISPATCH, COMBINE):
                ps[tasks] = self._ticks(name, parts[part], stretch, self._ops[mixer])
        return Values(ps.ravel(), known.size, known.alpha)

    def _ticks(self, name: str, part: Batch, stretch: float, ops: LayerOps) -> Int64s:
        """int64[R] ps of a task that is the same in every layer with that mixer; kept by numbers of tokens but for
        attention, whose core asks for contexts as well.
        """
        if name in CONTEXTS and name != ATTENTION:
            return to_ps(LAYER_PRICES[name](ops, part).stretched(stretch).total)
        key = (name, ops.number, stretch, part.tokens_of_rank.tobytes(), part.head_rows.tobytes())
        if key not in self._fixed:
            if len(self._fixed) >= KEPT:
                self._fixed.clear()
            self._fixed[key] = (
                (ops.projections(part), ops.norm(part))
                if name == ATTENTION
                else np.broadcast_to(
                    to_ps(self._priced(name, part, ops).stretched(stretch).total), len(self.group.devices)
                )
            )
        known = self._fixed[key]
        if not isinstance(known, tuple):
            return known
        work = _seconds(known[0]) + _seconds(ops.core(part)) + _seconds(known[1])
        return to_ps(work.stretched(stretch).total)

    def _priced(self, name: str, part: Batch, ops: LayerOps) -> Work:
        if name == HOST:
            return Work({HOST: np.full(len(self.group.devices), self.plan.host_seconds)})
        return LAYER_PRICES[name](ops, part)

    def parts_of(self, batch: Batch) -> Mapping[Part, Batch]:
        """The cuts of a batch that the schedule has."""
        cuts = {of: batch.split(of) for of in sorted({part.of for _, part, *_ in self._tasks})}
        return {Part(index, of): part for of, parts in cuts.items() for index, part in enumerate(parts)}

    def route(self, batch: Batch) -> Routed:
        """Look the routing of all layers up, part by part."""
        experts, dispatch, parts = {}, self.plan.dispatch, self.parts_of(batch)
        size = np.zeros(self.skeleton.num_flows, dtype=np.int64)
        alpha = np.zeros(self.skeleton.graph.num_tasks, dtype=np.int64)
        found = {number: self._lookup.of(parts[number]) for number, _ in self._experts}
        for number, stretch in self._experts:
            experts[number, stretch] = self._experts[number, stretch].ps(found[number].by_rank)
        for (name, number, *_), tasks in self._tasks.items():
            if name in (DISPATCH, COMBINE):
                rows = found[number].copies(dispatch.algorithm.direct)
                row_bytes = dispatch.dispatch_row_bytes if name == DISPATCH else dispatch.combine_row_bytes
                header = dispatch.algorithm.header_bytes if name == DISPATCH else 0
                facts = np.empty((3, len(rows)), dtype=np.int64)
                sizes = (row_bytes + header, row_bytes)
                exchanged(rows, name == COMBINE, *sizes, self.skeleton.size_at[tasks], size, facts)
                alpha[tasks] = self._startups(*facts)
        return Routed(experts, size, alpha)

    def _startups(self, peers: Int64s, messages: Int64s, busiest: Int64s) -> Int64s:
        """int64[layers] each, of the busiest rank -> int64[layers] ps, as Fabric does for one exchange."""
        algorithm = self.plan.dispatch.algorithm
        cost = self.plan.fabric.communication[algorithm.kernel(self.group)]
        facts = (peers + 1, messages if algorithm.message == "row" else peers, busiest)
        if not any(steps.op == "all_to_all" for steps in cost.steps):
            return to_ps(np.where(peers == 0, 0.0, cost.alpha + cost.per_message * facts[1]))
        return to_ps([self._startup(cost, *one) for one in zip(*(fact.tolist() for fact in facts), strict=True)])

    def _startup(self, cost: CommunicationCost, ranks: int, messages: int, busiest: int) -> float:
        """Seconds by a table of measured start-ups; kept, as layers ask for the same."""
        key = (ranks, messages, busiest)
        if key not in self._startup_of:
            self._startup_of[key] = cost.startup("all_to_all", *key)
        return self._startup_of[key]


def _seconds(work: Work) -> Work:
    """Without what it demands: the clock asks for time only."""
    return Work(work.seconds)


@njit
def exchanged(
    rows: Any, back: bool, each: int, message: int, size_at: Any, size: Any, facts: Any
) -> None:  # fmt: skip
    """rows int64[layers, R, R] from rank to rank, the way back with `back`; bytes of `each` row, of one `message`
    -> bytes of every pair by sender from size_at int64[layers] of size on; facts int64[3, layers]: the most peers,
    messages and bytes that one rank sends.
    """
    ranks = rows.shape[1]
    for layer in range(rows.shape[0]):
        flow = size_at[layer]
        most = (np.int64(0), np.int64(0), np.int64(0))
        for source in range(ranks):
            peers, messages, total = np.int64(0), np.int64(0), np.int64(0)
            for target in range(ranks):
                if target != source:
                    many = rows[layer, target, source] if back else rows[layer, source, target]
                    sent = many * each
                    size[flow] = sent
                    flow += 1
                    peers += sent > 0
                    total += sent
                    messages += many if each == message else -(-sent // message)
            most = (max(most[0], peers), max(most[1], messages), max(most[2], total))
        facts[0, layer], facts[1, layer], facts[2, layer] = most


def needs_graph(plan: StepPlan) -> str:
    """What a Refill of the plan cannot do; "" where it can."""
    spread, algorithm, cluster = plan.ops.spread, plan.dispatch.algorithm, plan.fabric.cluster
    exchanges = plan.layout.expert_parallel > 1
    reasons = {
        "tensor parallelism": spread.tensor > 1 or spread.expert_tensor > 1,
        "several expert-parallel groups": len(plan.layout.islands()) > 1,
        f"{algorithm.name} forwards, merges or gathers rows": exchanges and not algorithm.direct,
        f"tokens travel with {algorithm.name}": algorithm.travels,
        "GPUs share a port": exchanges and _share_ports(cluster, plan.layout.islands()[0]),
        "messages are divided over queue pairs": bool(cluster.more_paths),
        "links state a latency": bool(np.any(cluster.link_latency > 0)),
        "a router decides, and its own work is priced": not isinstance(plan.routing, PerToken),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _share_ports(cluster: Cluster, devices: npt.NDArray[np.int32]) -> bool:
    """Whether messages of several GPUs leave their node one after the other."""
    leaves = np.array([*(kind in OUT for kind in cluster.link_kind), False], dtype=np.bool_)
    path = cluster.path[np.ix_(devices, devices)]
    source, _, _ = np.nonzero(leaves[path])
    ports = path[leaves[path]]
    return len(np.unique(np.stack((source, ports)), axis=1).T) > len(np.unique(ports))
