"""Passes: how long a stage computes on a micro-batch, and what follows the last one.

Layers of one kind take equally long where every expert has as many rows, so one layer of each kind is played, on the
ranks that hold all experts together, and counted as often as the stage has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from moesim.engine import Timeline, evaluate
from moesim.layout import Layout
from moesim.models import MoEModel
from moesim.schedules import Verb, Way
from moesim.step import lower
from moesim.step.lowered import Lowered, Lowering
from moesim.step.optimizer import optimizer_step
from moesim.training.job import Job
from moesim.training.stages import Stage
from moesim.units import to_ps

EXCHANGES: Final = ("dispatch", "combine", "combine_backward", "dispatch_backward")
Kind = tuple[int, bool, bool]  # of a layer: number of its mixer, whether it has experts, whether it has nothing


class Pair(NamedTuple):
    """Picoseconds of a forward and a backward pass; what of both is spent in all-to-alls, and in GEMMs."""

    forward: int
    backward: int
    exchange: int
    gemm: int

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
        return Pair(forward, left - forward, max(self.exchange - compute, 0), self.gemm)


class Passes(NamedTuple):
    """Picoseconds of a stage: forward and backward of a micro-batch, exposed all-to-alls among them; what follows the
    last one: gradients, optimizer, parameters.
    """

    forward: int
    backward: int
    after: int
    exchange: int


class Layers:
    """Picoseconds of the layers of a job, each kind played once, with the ends of the model that lie beside it."""

    def __init__(self, job: Job) -> None:
        layout = job.layout
        island = Layout(layout.island, layout.tensor_parallel, layout.expert_parallel, layout.expert_tensor_parallel)
        self._job, self._island = job, island
        self._known: dict[tuple[Kind, bool, bool], Pair] = {}

    def passes(self, stage: Stage) -> Passes:
        """Of all layers of a stage."""
        pair = Pair(0, 0, 0, 0)
        for part in _alone(stage):
            pair = pair + self._played(kind_of(self._job.model, part.first), part)
        if self._job.overlap and pair.exchange:
            pair = pair.overlapped(self._job.plan(stage).dispatch.slowdown)
        return Passes(pair.forward, pair.backward, self._after(stage), pair.exchange)

    def _played(self, kind: Kind, part: Stage) -> Pair:
        key = (kind, part.begins, part.ends)
        if key not in self._known:
            self._known[key] = self._play(part)
        return self._known[key]

    def _play(self, part: Stage) -> Pair:
        """Of one layer."""
        plan = replace(self._job.plan(part), layout=self._island)
        lowered = lower(plan, [self._job.batch(self._island.world)])
        timeline = evaluate(lowered.graph, self._job.fabric.capacity)
        kind = np.array([_way(node.verb, node.way) for node in lowered.nodes])[timeline.task]
        forward, backward = (int(timeline.end[kind == which].max(initial=0)) for which in (0, 1))
        exchange, gemm = _parts(lowered, timeline)
        return Pair(forward, backward - forward, exchange, gemm)

    def _after(self, stage: Stage) -> int:
        """Gradients, optimizer and parameters of all ranks of a stage."""
        plan = self._job.plan(stage)
        lowering = Lowering.of(0, 0, plan.layout.world, 1)
        optimizer_step(plan, lowering, [])
        return int(evaluate(lowering.finish().graph, self._job.fabric.capacity).end.max(initial=0))


def kind_of(model: MoEModel, layer: int) -> Kind:
    """What a layer is made of."""
    return model.mixer_of[layer], layer in model.moe_layers, layer in model.bare_layers


def _alone(stage: Stage) -> Iterator[Stage]:
    """Each layer as a stage; of the ends of the model the first has what its stage begins with, the last the other."""
    for layer in range(stage.first, stage.last):
        begins, ends = stage.begins and layer == stage.first, stage.ends and layer == stage.last - 1
        number, of = (0, 1 if ends else 2) if begins else (1, 2 if ends else 3)
        yield Stage(number, of, layer, layer + 1)


def _parts(lowered: Lowered, timeline: Timeline) -> tuple[int, int]:
    """Picoseconds of all-to-alls and of GEMMs on the first rank, which is like all others."""
    first = lowered.graph.lane_ptr[:-1]
    names = np.array(lowered.graph.name)
    spent = (timeline.end - timeline.start)[first]
    gemm = lowered.work.get("gemm", np.zeros(lowered.graph.num_lanes))[first]
    return int(spent[np.isin(names, EXCHANGES)].sum()), int(to_ps(float(gemm.sum())))


def _way(verb: Verb, way: Way) -> int:
    if verb == Verb.OPTIMIZER:
        return 2
    return 0 if way == Way.FORWARD else 1
