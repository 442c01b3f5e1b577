"""The end of a training step: gradients reduced, weights updated, parameters gathered again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from moesim.engine import Join
from moesim.layout import Held, Shards, held
from moesim.layout.shards import GRADIENTS, OPTIMIZER, WEIGHTS
from moesim.network import Coflow, Group, algorithms, groups, rail_ring
from moesim.schedules import WHOLE, Node, Verb
from moesim.step.lowered import Lowering
from moesim.step.plan import StepPlan
from moesim.step.whole import Whole
from moesim.step.work import Work

PARAMETER_BYTES: Final = 2  # bf16 parameters are gathered
NODE = Node(Verb.OPTIMIZER, -1, WHOLE)
Op = Literal["reduce_scatter", "all_reduce", "all_gather"]


class Moved(NamedTuple):
    """A collective over `width` ranks that lie `stride` apart, on a buffer of so many bytes."""

    name: str
    op: Op
    width: int
    stride: int
    bytes: float

    @property
    def sent(self) -> float:
        """Bytes that a rank of a ring sends."""
        return (2 if self.op == "all_reduce" else 1) * self.bytes * (self.width - 1) / self.width


def scattered(shards: Shards, dense: float, expert: float, width_bytes: int) -> Iterator[Moved]:
    """Gradients of so many parameters of a rank, summed up over each shard group."""
    return _each(shards, "reduce_scatter", dense, expert, width_bytes)


def gathered(shards: Shards, dense: float, expert: float) -> Iterator[Moved]:
    """Parameters of each shard group."""
    return _each(shards, "all_gather", dense, expert, PARAMETER_BYTES)


def summed(shards: Shards, dense: float, expert: float, width_bytes: int) -> Iterator[Moved]:
    """What is left of gradients once shard groups have theirs: over replicas of them; of unsharded ones over all."""
    for kind, split, parameters in (("dense", shards.dense, dense), ("expert", shards.expert, expert)):
        apart = shards.stage >= OPTIMIZER
        width, stride = (split.replicas, split.stride * split.shard) if apart else (split.whole, split.stride)
        if width > 1 and parameters:
            part = parameters / split.shard if apart else parameters
            yield Moved(f"{kind}_all_reduce", "all_reduce", width, stride, part * width_bytes)


def after_step(shards: Shards, dense: float, expert: float, width_bytes: int) -> tuple[list[Moved], list[Moved]]:
    """What follows the last micro-batch: before the optimizer, and behind it."""
    first = list(scattered(shards, dense, expert, width_bytes)) if shards.stage == OPTIMIZER else []
    again = gathered(shards, dense, expert) if OPTIMIZER <= shards.stage < WEIGHTS else ()
    return [*first, *summed(shards, dense, expert, width_bytes)], list(again)


def in_passes(shards: Shards, dense: float, expert: float, width_bytes: int) -> tuple[list[Moved], list[Moved]]:
    """What every micro-batch moves: before each of its two passes, and behind the backward one."""
    gather = list(gathered(shards, dense, expert)) if shards.stage >= WEIGHTS else []
    return gather, list(scattered(shards, dense, expert, width_bytes)) if shards.stage >= GRADIENTS else []


def coflow_of(plan: StepPlan, moved: Moved) -> Coflow:
    """On the ranks of a plan, with what each begins or ends with; an all-reduce as NCCL picks it."""
    world = plan.layout.world
    group = Group(plan.fabric.cluster, np.arange(world, dtype=np.int32))
    lanes = groups(world, moved.width, moved.stride)
    part = np.full(world, int(-(-moved.bytes // moved.width)), dtype=np.int64)
    if moved.op == "all_reduce":
        return plan.fabric.fastest(algorithms(moved.op, group, lanes, part), group)[1]
    return plan.fabric.collective(rail_ring(moved.op, group, lanes, part), group)


def parameters_of(plan: StepPlan) -> tuple[int, int]:
    """Dense and expert ones of a rank."""
    mine = held_by(plan)
    return mine.dense, mine.expert


def held_by(plan: StepPlan, router: int = 0) -> Held:
    """What the optimizer updates on a rank; router: parameters of a router's own beside its gate."""
    return held(plan.ops.spread, plan.placement, plan.elsewhere, router)


def whole_matrices(plan: StepPlan) -> Whole | None:
    """Those that the optimizer needs whole, if it does."""
    return Whole(held_by(plan), plan.shards, plan.layout.world) if plan.optimizer.orthogonal else None


def optimizer_step(plan: StepPlan, lowering: Lowering, islands: Sequence[list[int]]) -> None:
    """Gradients reduced as their sharding says, the optimizer on what each rank keeps the states of, and on whole
    matrices where it needs them, parameters gathered; the sums of gradients are set to zero again. `islands`: the last
    tasks of each expert-parallel group.
    """
    layout, shards = plan.layout, plan.shards
    ranks = np.arange(layout.world, dtype=np.int32)
    mine, whole = held_by(plan, int(lowering.gates.sum())), whole_matrices(plan)
    dense, expert = mine.dense, mine.expert
    before = after_step(shards, dense - reduced_before(plan), expert, plan.gradient_bytes)[0]
    behind = after_step(shards, dense, expert, plan.gradient_bytes)[1]
    after = _transfers(plan, lowering, before, [(task, Join.GROUP) for tasks in islands for task in tasks])
    for name, coflow in whole.gathered(plan.fabric) if whole else ():
        after = [(lowering.transfer(name, ranks, coflow, after, NODE), Join.LANE)]
    moved = mine.update_bytes(plan.optimizer, shards, plan.gradient_bytes)
    zeroed = plan.gradient_bytes * shards.kept(dense, expert, GRADIENTS)
    work = plan.ops.update(layout.world, moved + zeroed)
    work += whole.newton_schulz(plan.ops) if whole else Work()
    after = [(lowering.compute("optimizer", ranks, work, after, NODE), Join.LANE)]
    _transfers(plan, lowering, behind, after)


def shared_parameters(plan: StepPlan, layer: int) -> int:
    """Dense parameters of a layer on a rank; behind the last layer those of the output head, where it has its own."""
    spread, model = plan.ops.spread, plan.model
    if layer < model.num_layers:
        return spread.layer_parameters(layer)
    return 0 if model.tie_embeddings else spread.head_gemm().parameters


def reduced_before(plan: StepPlan) -> float:
    """Dense parameters whose gradients are reduced while the backward pass still computes."""
    return sum(fill.share * shared_parameters(plan, fill.layer) for fill in plan.schedule.fills)


def _each(shards: Shards, op: Op, dense: float, expert: float, width_bytes: int) -> Iterator[Moved]:
    for kind, split, parameters in (("dense", shards.dense, dense), ("expert", shards.expert, expert)):
        if split.shard > 1 and parameters:
            yield Moved(f"{kind}_{op}", op, split.shard, split.stride, parameters * width_bytes)


def _transfers(
    plan: StepPlan, lowering: Lowering, moves: Iterable[Moved], after: list[tuple[int, Join]]
) -> list[tuple[int, Join]]:
    """One after the other."""
    ranks = np.arange(plan.layout.world, dtype=np.int32)
    for moved in moves:
        task = lowering.transfer(moved.name, ranks, coflow_of(plan, moved), after, NODE)
        after = [(task, Join.LANE)]
    return after
