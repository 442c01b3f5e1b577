"""Passes: how long a stage computes on a micro-batch, and what follows the last one.

Layers of one kind take equally long where every expert has as many rows, so one layer of each kind is played, on the
ranks that hold all experts together, and counted as often as the stage has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from moesim.engine import FLUID_GPUS, TaskGraph, Timeline, evaluate, simulate
from moesim.layout.shards import GRADIENTS
from moesim.models import MoEModel
from moesim.schedules import Verb, Way
from moesim.step import lower
from moesim.step.lowered import Lowered, Lowering
from moesim.step.makers.attention import CONTEXT_RING
from moesim.step.optimizer import optimizer_step
from moesim.step.whole import GATHERED
from moesim.training.job import Job
from moesim.training.sharding import LayerMoves, Sharding
from moesim.training.slots import EXCHANGES
from moesim.training.stages import SplitSchedule, Stage
from moesim.units import to_ps

WINDOW: Final = 0.01  # completions closer than this share are merged, as in a step of its own
Kind = tuple[int, bool, bool]  # of a layer: number of its mixer, whether it has experts, whether it has nothing

StageKind = tuple[tuple[Kind, ...], bool, bool]  # its layers' kinds, and the ends of the model that it has


class Pair(NamedTuple):
    """Picoseconds of a forward and a backward pass; what of both is spent in all-to-alls, GEMMs, other transfers, and
    in moving sharded parameters and gradients that nothing hides. weights: of the backward pass, what gradients of
    weights take where they are a pass of their own.
    """

    forward: int
    backward: int
    exchange: int
    gemm: int
    ring: int
    shard: int = 0
    weights: int = 0

    def __add__(self, other: object) -> Pair:
        assert isinstance(other, Pair)
        return Pair(*(one + more for one, more in zip(self, other, strict=True)))

    def overlapped(self, slowdown: float) -> Pair:
        """Every all-to-all beside the compute of another micro-batch, GEMMs on the SMs that it leaves: no step of
        Megatron's combined passes is shorter.
        """
        whole = self.forward + self.backward
        compute = whole - self.exchange + round(self.gemm * (slowdown - 1))
        left = max(compute, self.exchange)
        forward = round(self.forward * left / whole)
        backward, seen = left - forward, max(self.exchange - compute, 0)
        return Pair(forward, backward, seen, self.gemm, self.ring, 0, min(self.weights, backward))

    def sharded(self, forward: int, backward: int) -> Pair:
        """Longer by what nothing hides of gathering parameters and reducing gradients."""
        longer = self.forward + forward, self.backward + backward
        return Pair(*longer, self.exchange, self.gemm, self.ring, forward + backward, self.weights)

    @property
    def whole(self) -> int:
        """Both passes."""
        return self.forward + self.backward

    @property
    def computing(self) -> tuple[int, int]:
        """Of each pass what is no transfer; transfers are spread evenly over both."""
        compute = self.whole - self.exchange - self.ring
        forward = round(compute * self.forward / self.whole)
        return forward, compute - forward


class Passes(NamedTuple):
    """Picoseconds of a stage: one: both passes of a micro-batch by themselves; hidden: of two that overlap;
    sync: gradients reduced and parameters gathered after the last one; update: the optimizer.
    """

    one: Pair
    hidden: Pair
    sync: int
    update: int

    @property
    def after(self) -> int:
        """What follows the last micro-batch."""
        return self.sync + self.update


class Layers:
    """Picoseconds of the layers of a job, each kind played once, with the ends of the model that lie beside it."""

    def __init__(self, job: Job) -> None:
        self._job, self._sharding = job, Sharding(job)
        self._known: dict[tuple[Kind, bool, bool], Pair] = {}
        self._ended: dict[StageKind, tuple[int, int]] = {}

    def passes(self, stage: Stage) -> Passes:
        """Of all layers of a stage."""
        pair = sum((self._played(part) for part in stage.alone()), Pair(0, 0, 0, 0, 0))
        hidden = pair.overlapped(self._job.plan(stage).dispatch.slowdown) if pair.exchange else pair
        longer = self._sharding.passes(*self._moves(stage)) if self._job.zero >= GRADIENTS else (0, 0)
        one, beside = ((hidden if self._job.overlap else pair).sharded(*longer), hidden.sharded(*longer))
        return Passes(one, beside, *self.after(stage))

    def _moves(self, stage: Stage) -> tuple[list[LayerMoves], list[int], list[int]]:
        """Of each layer what sharding moves, and its compute."""
        parts = list(stage.alone())
        compute = [self._played(part).computing for part in parts]
        moves = [self._sharding.layer(part) for part in parts]
        return moves, [one[0] for one in compute], [one[1] for one in compute]

    def _played(self, part: Stage) -> Pair:
        key = (kind_of(self._job.model, part.first), part.begins, part.ends)
        if key not in self._known:
            self._known[key] = self._play(part)
        return self._known[key]

    def _play(self, part: Stage) -> Pair:
        """Of one layer."""
        plan = self._job.island(part)
        lowered = lower(plan, [self._job.batch(plan.layout.world)])
        timeline = self._timed(lowered.graph)
        kind = np.array([_way(node.verb, node.way) for node in lowered.nodes])[timeline.task]
        forward, backward = (int(timeline.end[kind == which].max(initial=0)) for which in (0, 1))
        return Pair(forward, backward - forward, *_parts(lowered, timeline), 0, self._weights(part))

    def _weights(self, part: Stage) -> int:
        """Of gradients of weights by themselves, where the pipeline has them so."""
        if not self._sharding.halves:
            return 0
        plan = replace(self._job.island(part), schedule=SplitSchedule(part))
        lowered = lower(plan, [self._job.batch(plan.layout.world)])
        timeline = self._timed(lowered.graph)
        own = np.array([node.way == Way.BACKWARD_WEIGHT for node in lowered.nodes])[timeline.task]
        last = int(timeline.end[own].max(initial=0))
        return last - int(timeline.start[own].min(initial=last))

    def _timed(self, graph: TaskGraph) -> Timeline:
        """By the fluid network where flows of several GPUs meet: a lane's port loads are of its own bytes."""
        capacity = self._job.fabric.capacity
        return simulate(graph, capacity, window=WINDOW) if plays_fluid(self._job) else evaluate(graph, capacity)

    def after(self, stage: Stage) -> tuple[int, int]:
        """Gradients and parameters of all ranks of a stage; the optimizer."""
        key = stage_kind(self._job.model, stage)
        if key not in self._ended:
            self._ended[key] = self._end(stage)
        return self._ended[key]

    def _end(self, stage: Stage) -> tuple[int, int]:
        reduce, update, gather = self._behind(stage)
        if self._job.reduce_beside or self._job.gather_beside:
            reduced, gathered = self._sharding.once(*self._moves(stage))
            reduce, gather = reduce if reduced is None else reduced, gather if gathered is None else gathered
        return reduce + gather, update

    def _behind(self, stage: Stage) -> tuple[int, int, int]:
        """Gradients reduced, the optimizer, parameters gathered, all at once behind the last micro-batch."""
        plan = self._job.plan(stage)
        lowering = Lowering.of(0, 0, plan.layout.world, 1)
        optimizer_step(plan, lowering, [])
        graph = lowering.finish().graph
        line = evaluate(graph, self._job.fabric.capacity)
        updates = [task for task, name in enumerate(graph.name) if name == "optimizer" or name.endswith(GATHERED)]
        reduced, updated = (int(graph.lane_ptr[task]) for task in (updates[0], updates[-1]))
        reduced, updated = int(line.start[reduced]), int(line.end[updated])
        return reduced, updated - reduced, int(line.end.max()) - updated


def plays_fluid(job: Job) -> bool:
    """Whether layers with even rows are played by the fluid network."""
    return job.meets and job.layout.island <= FLUID_GPUS


def stage_kind(model: MoEModel, stage: Stage) -> StageKind:
    """What a stage is made of."""
    return tuple(kind_of(model, layer) for layer in range(stage.first, stage.last)), stage.begins, stage.ends


def kind_of(model: MoEModel, layer: int) -> Kind:
    """What a layer is made of."""
    return model.mixer_of[layer], layer in model.moe_layers, layer in model.bare_layers


def _parts(lowered: Lowered, timeline: Timeline) -> tuple[int, int, int]:
    """Picoseconds of all-to-alls, GEMMs and other transfers on the first rank, which is like all others."""
    first = lowered.graph.lane_ptr[:-1]
    names = np.array(lowered.graph.name)
    spent = (timeline.end - timeline.start)[first]
    gemm = lowered.work.get("gemm", np.zeros(lowered.graph.num_lanes))[first]
    sends, layers = np.isin(names, EXCHANGES), np.array([node.verb != Verb.OPTIMIZER for node in lowered.nodes])
    others = ((lowered.graph.coflow >= 0) | (names == CONTEXT_RING)) & ~sends & layers
    return int(spent[sends].sum()), int(to_ps(float(gemm[layers].sum()))), int(spent[others].sum())


def _way(verb: Verb, way: Way) -> int:
    if verb == Verb.OPTIMIZER:
        return 2
    return 0 if way == Way.FORWARD else 1
