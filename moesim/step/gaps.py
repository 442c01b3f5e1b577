"""What a schedule decides by playing: into how many parts it cuts each pass, and which gaps take which gradients.

It decides with what it believes: even rows, links without contention. What is run then has its own rows and links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from moesim.engine import Timeline, evaluate
from moesim.routing import Balanced
from moesim.schedules import COMM, Fill, Node, Verb, Way
from moesim.schedules.gradients import makers_of
from moesim.step.batch import Batch
from moesim.step.lower import lower
from moesim.step.lowered import Lowered
from moesim.step.optimizer import after_step, coflow_of, shared_parameters
from moesim.step.plan import StepPlan
from moesim.units import to_ps

DEGREES: Final = (1, 2, 3, 4, 6, 8)
LEAST: Final = 1e-6  # of a layer's gradients: nothing is left


class Gap(NamedTuple):
    """ps from when to when the stream between nodes is idle on every rank, behind which node of the step."""

    behind: int
    begin: int
    end: int


@dataclass
class Waiting:
    """Gradients of a layer: ready at `ps` behind node `node`; start and whole: ps of a transfer's start-up, and of what
    follows it for all of them; left: their share that has no place yet.
    """

    layer: int
    node: int
    ps: int
    start: int
    whole: int
    left: float = 1.0

    def fits(self, room: int, slices: int) -> float:
        """Their share that is reduced in `room` ps: a slice or nothing; with 0 slices, what is worth its start-up."""
        if slices:
            return 1 / slices if room >= self.start + self.whole / slices else 0.0
        share = min(self.left, (room - self.start) / max(self.whole, 1))
        return share if share * self.whole >= min(self.start, self.left * self.whole) else 0.0


class Believed(NamedTuple):
    """A step as the schedule sees it ahead."""

    nodes: tuple[Node, ...]
    lowered: Lowered
    line: Timeline


def with_degrees(plan: StepPlan, batches: Sequence[Batch], *, forward: bool, backward: bool) -> StepPlan:
    """The plan whose passes are cut into as many parts as make them shortest, those of the two that are asked for."""
    most = min(int(batch.tokens_of_rank.min()) for batch in batches)
    tried = {
        degree: _passes(_believed(_cut(plan, degree if forward else None, degree if backward else None), batches[:1]))
        for degree in DEGREES if degree <= most
    }  # fmt: skip
    first = min(tried, key=lambda degree: (tried[degree][0], degree))
    second = min(tried, key=lambda degree: (tried[degree][1], degree))
    return _cut(plan, first if forward else None, second if backward else None)


def with_gradients(plan: StepPlan, batches: Sequence[Batch]) -> StepPlan:
    """The plan whose gaps have gradients in them, where its schedule fills them and one group of ranks has all experts:
    across several no rank could queue them.
    """
    slices = plan.schedule.slices
    if slices is None or len(plan.layout.islands()) > 1:
        return plan
    believed = _believed(plan, batches)
    waiting = sorted(_waiting(plan, believed), key=lambda one: one.ps)
    fills = tuple(_filled(list(_gaps(believed)), waiting, slices))
    return replace(plan, schedule=plan.schedule.changed(fills=fills))


def _cut(plan: StepPlan, forward: int | None, backward: int | None) -> StepPlan:
    schedule = plan.schedule
    degrees = {"degree": forward or schedule.degree, "degree_backward": backward or schedule.degree_backward}
    return replace(plan, schedule=schedule.changed(**degrees))


def _believed(plan: StepPlan, batches: Sequence[Batch]) -> Believed:
    even = replace(plan, routing=Balanced(plan.model, 0)) if plan.model.routed else plan
    lowered = lower(even, batches)
    line = evaluate(lowered.graph, plan.fabric.capacity, speed=plan.speed(lowered.graph))
    return Believed(plan.nodes(len(batches), batches[0].training), lowered, line)


def _passes(one: Believed) -> tuple[int, int]:
    """ps of the forward pass, and of the backward one behind it."""
    way = np.array([node.way != Way.FORWARD for node in one.lowered.nodes])[one.line.task]
    layers = np.array([node.verb != Verb.OPTIMIZER for node in one.lowered.nodes])[one.line.task]
    forward, backward = (int(one.line.end[layers & which].max(initial=0)) for which in (~way, way))
    return forward, backward - forward


def _waiting(plan: StepPlan, one: Believed) -> Iterator[Waiting]:
    """Gradients of every layer and of the head."""
    head = plan.model.num_layers
    task_of = {node: task for task, node in enumerate(one.lowered.nodes)}  # the last of each
    for layer in range(head + 1):
        made, parameters = makers_of(one.nodes, layer, head), shared_parameters(plan, layer)
        if made and parameters:
            ready = max(_end(one, task_of[one.nodes[number]]) for number in made if one.nodes[number] in task_of)
            moves = [coflow_of(plan, moved) for moved in after_step(plan.shards, parameters, 0, plan.gradient_bytes)[0]]
            start = int(sum(to_ps(coflow.alpha) for coflow in moves))
            whole = int(sum(to_ps(plan.fabric.alone(coflow)) for coflow in moves))
            yield Waiting(layer, max(made), ready, start, whole - start)


def _end(one: Believed, task: int) -> int:
    return int(one.line.end[one.lowered.graph.lanes(task)].max())


def _gaps(one: Believed) -> Iterator[Gap]:
    """Between transfers of the last micro-batch's backward pass, on the stream that they share."""
    graph, nodes = one.lowered.graph, one.lowered.nodes
    number_of = {node: number for number, node in enumerate(one.nodes)}
    stream = [task for task in range(graph.num_tasks) if graph.streams[graph.stream[task]] == COMM]
    last = one.nodes[-1].micro_batch
    for task, following in pairwise(stream):
        node = nodes[task]
        if node.way == Way.FORWARD or node.micro_batch != last or node is nodes[following]:
            continue
        begin, end = _end(one, task), int(one.line.start[graph.lanes(following)].min())
        if end > begin:
            yield Gap(number_of[node], begin, end)


def _filled(gaps: Sequence[Gap], waiting: Sequence[Waiting], slices: int) -> Iterator[Fill]:
    """First come, first reduced."""
    left = list(waiting)
    for gap in gaps:
        now = gap.begin
        while left and left[0].node <= gap.behind and left[0].ps < gap.end:
            first = left[0]
            now = max(now, first.ps)
            if (share := first.fits(gap.end - now, slices)) <= 0.0:
                break
            yield Fill(gap.behind, first.layer, share)
            now += first.start + round(share * first.whole)
            first.left -= share
            if first.left < LEAST:
                left.pop(0)
