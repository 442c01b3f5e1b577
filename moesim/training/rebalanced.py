"""Steps of a run whose experts move: what each look at the load decides, what moving costs, and what it saves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.layout.shards import OPTIMIZER, WEIGHTS
from moesim.placement import PlacementProblem, Windows
from moesim.placement.migration import migrate
from moesim.placement.online import Policy, decide
from moesim.routing.sources.sequences import Sequences
from moesim.training.job import Job
from moesim.training.memory import BF16
from moesim.training.routed import routed_step


class Look(NamedTuple):
    """seconds of a step from this look to the next; still: those with experts where they were at first; stall: seconds
    in which experts move before; moved: bytes that they take over links, on all GPUs; moves: experts of one group.
    """

    seconds: float
    still: float
    stall: float = 0.0
    moved: int = 0
    moves: int = 0


class Moved(NamedTuple):
    """What a change of placement costs: see Look."""

    stall: float
    moved: int
    moves: int


def rebalanced(job: Job, policy: Policy, sources: Iterable[Sequences]) -> Iterator[Look]:
    """sources: the rows of each look. Each is planned on the load of the one before, which is what was seen till then.
    Raises BadInput where no expert can move, or the strategy needs more than loads.
    """
    problem, first = _problem(job), job.placement(job.model)
    now, load = first, None
    for source in sources:
        cost = Moved(0.0, 0, 0)
        if load is not None:
            made = decide(policy, problem, now, (load,))
            cost = cost_of(job, now, made.placement) if made.changed else cost
            now = made.placement
        still = routed_step(job, source)
        step = still if now is first else routed_step(replace(job, placed=now), source)
        load = step.load
        yield Look(step.seconds, still.seconds, *cost)


def _problem(job: Job) -> PlacementProblem:
    if job.expert == 1 or not job.model.routed:
        raise BadInput("no expert can move", way_out="an expert_parallel_size, or leave it out")
    if job.limit and job.limit.pad:
        raise BadInput("every expert takes as many rows, padding included: nothing is gained where some move",
                       way_out="training.pad_to_capacity: false, or leave it out")  # fmt: skip
    even = np.ones((1, len(job.model.moe_layers), job.model.num_experts), dtype=np.int64)
    return PlacementProblem.on(job.cluster, Windows("loads", even), ranks=job.expert, groups=job.model.num_groups)


def cost_of(job: Job, before: Placement, after: Placement) -> Moved:
    """Experts move with their weights and the part of their optimizer states that a rank keeps, in all groups that hold
    them at once; stages beside each other, those of one rank of the pipeline one after the other.
    """
    stall, sent, moves = 0.0, 0, 0
    for rank in range(job.pipeline):
        seconds = 0.0
        for stage in job.stages_of(rank):
            layers = np.array(job.moe_layers_of(stage), dtype=np.int64)
            if not len(layers):
                continue
            plan = job.plan(stage)
            one = plan.ops.spread.expert_parameters
            kept = BF16 * plan.shards.kept(0, one, WEIGHTS)
            each = round(kept + plan.optimizer.bytes_per_parameter * plan.shards.kept(0, one, OPTIMIZER))
            found = migrate(before.of_layers(layers), after.of_layers(layers), job.fabric, each)
            seconds, sent, moves = seconds + found.seconds, sent + found.bytes, moves + len(found.moves)
        stall = max(stall, seconds)
    return Moved(stall, sent * job.layout.expert_data_parallel, moves)
