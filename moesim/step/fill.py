"""Refill: a plan's step built once, then filled with the values of one batch after the other.

The structure is that of `lower` for a batch of one token a part: tasks, edges and streams do not depend on the batch.
What does is worked out for all layers at once: prices of a part, which are the same in every layer; rows of experts;
bytes of pairs and start-ups of exchanges. `lower` through `evaluate` gives the same, to the tick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

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
from moesim.step.lower import check, lower
from moesim.step.lowered import HOST
from moesim.step.plan import StepPlan
from moesim.step.prices import PRICES
from moesim.step.spans import LayerTraffic, Lookup
from moesim.step.work import Work
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
Kind = tuple[str, Part, float]  # of tasks that cost the same in every layer: name, part, stretch
EXPERTS, DISPATCH, COMBINE = "experts", "dispatch", "combine"


class Routed(NamedTuple):
    """The part of a batch's values that its routing decides: experts int64[layers, R] ps by part; of the dispatch and
    the combine of each part bytes int64[layers, F] and start-up int64[layers] ps.
    """

    experts: dict[Part, Int64s]
    size: dict[tuple[str, Part], Int64s]
    alpha: dict[tuple[str, Part], Int64s]


class Refill:
    """Steps of inference by `plan`. Raises BadInput where a plan's steps need the graph player, saying why."""

    def __init__(self, plan: StepPlan) -> None:
        if reason := needs_graph(plan):
            raise BadInput(f"these steps are lowered one by one: {reason}", way_out="lower, then evaluate")
        self.plan, self._lookup = plan, Lookup(plan)
        self._startup_of: dict[tuple[int, int, int], float] = {}
        lowered = lower(plan, (uniform_batch("decode", plan.layout.world, plan.schedule.cuts, 1),))
        self.group = Group(plan.fabric.cluster, plan.layout.islands()[0])
        kinds: dict[Kind, list[int]] = {}
        for task, (name, node) in enumerate(zip(lowered.graph.name, lowered.nodes, strict=True)):
            kinds.setdefault((name, node.part, plan.stretch(node)), []).append(task)
        self._tasks = {kind: np.array(tasks, dtype=np.int64) for kind, tasks in kinds.items()}
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
        alpha = np.zeros(graph.num_tasks, dtype=np.int64)
        size = np.zeros((graph.num_tasks, lanes * (lanes - 1)), dtype=np.int64)
        for (name, part, stretch), tasks in self._tasks.items():
            if name == EXPERTS:
                ps[tasks] = known.experts[part]
            elif name in (DISPATCH, COMBINE):
                size[tasks], alpha[tasks] = known.size[name, part], known.alpha[name, part]
            else:
                ps[tasks] = to_ps(self._priced(name, parts[part]).stretched(stretch).total)
        return Values(ps.ravel(), size[self.skeleton.pattern >= 0].ravel(), alpha)

    def _priced(self, name: str, part: Batch) -> Work:
        if name == HOST:
            return Work({HOST: np.full(len(self.group.devices), self.plan.host_seconds)})
        return PRICES[name](self.plan.ops, part)

    def parts_of(self, batch: Batch) -> Mapping[Part, Batch]:
        """The cuts of a batch that the schedule has."""
        cuts = {of: batch.split(of) for of in sorted({part.of for _, part, _ in self._tasks})}
        return {Part(index, of): part for of, parts in cuts.items() for index, part in enumerate(parts)}

    def route(self, batch: Batch) -> Routed:
        """Look the routing of all layers up, part by part."""
        experts, size, alpha = {}, {}, {}
        dispatch, parts = self.plan.dispatch, self.parts_of(batch)
        for number, stretch in ((part, stretch) for name, part, stretch in self._tasks if name == EXPERTS):
            found = self._lookup.of(parts[number])
            experts[number] = self._experts(found, stretch)
            if self.plan.layout.expert_parallel > 1:
                rows = found.copies(dispatch.algorithm.direct)
                for name, sent, row_bytes in (
                    (DISPATCH, rows, dispatch.dispatch_row_bytes),
                    (COMBINE, rows.transpose(0, 2, 1), dispatch.combine_row_bytes),
                ):
                    header = dispatch.algorithm.header_bytes if name == DISPATCH else 0
                    flows = sent[:, ~np.eye(rows.shape[1], dtype=np.bool_)] * (row_bytes + header)
                    size[name, number], alpha[name, number] = flows, self._startups(flows, row_bytes)
        return Routed(experts, size, alpha)

    def _experts(self, found: LayerTraffic, slowdown: float) -> Int64s:
        """int64[layers, R] ps."""
        layers, ranks, slots = found.by_rank.shape
        work = self.plan.ops.experts(found.by_rank.reshape(-1, slots), False, None)
        return to_ps(work.stretched(slowdown).total).reshape(layers, ranks)

    def _startups(self, size: Int64s, row_bytes: int) -> Int64s:
        """size int64[layers, F] bytes of all pairs, by sender -> int64[layers] ps, as Fabric does for one exchange."""
        algorithm = self.plan.dispatch.algorithm
        cost = self.plan.fabric.communication[algorithm.kernel(self.group)]
        by_sender = size.reshape(len(size), len(self.group.devices), -1)
        peers = (by_sender > 0).sum(axis=2).max(axis=1)
        messages = (-(-by_sender // row_bytes)).sum(axis=2).max(axis=1) if algorithm.message == "row" else peers
        busiest = by_sender.sum(axis=2).max(axis=1)
        given = zip((peers + 1).tolist(), messages.tolist(), busiest.tolist(), strict=True)
        return to_ps([self._startup(cost, *one) for one in given])

    def _startup(self, cost: CommunicationCost, ranks: int, messages: int, busiest: int) -> float:
        """Seconds; kept, as layers ask for the same. Bytes matter only to kernels with tables of start-ups."""
        key = (ranks, messages, busiest if cost.steps else 0)
        if key not in self._startup_of:
            self._startup_of[key] = cost.startup("all_to_all", ranks, messages, float(busiest))
        return self._startup_of[key]


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
