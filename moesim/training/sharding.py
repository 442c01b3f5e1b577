"""What sharded data parallelism adds to a stage: parameters gathered, gradients reduced, and what compute hides of it.

Each layer is moved by itself. While one computes, the parameters of the next are gathered, and the gradients of the one
before are reduced (FSDP prefetches one layer; Zhao et al. 2023, section 3.3): a layer takes longer by what its compute
does not hide, and the first gathering and the last reduction of a pass have nothing to hide behind. All-to-alls and
transfers of tensor groups use the same links, so that they hide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from moesim.schedules.pipelines import Pass
from moesim.step import StepPlan
from moesim.step.optimizer import Moved, after_step, coflow_of, in_passes, parameters_of, whole_matrices
from moesim.training.job import Job
from moesim.training.stages import Stage
from moesim.units import to_ps

Ps = Sequence[int]


class LayerMoves(NamedTuple):
    """ps of a layer's collectives: of every micro-batch, before a pass and behind the backward one; of a step, of
    gradients behind the last micro-batch and of parameters behind the optimizer.
    """

    gather: int
    reduce: int
    last_reduce: int
    next_gather: int


class Sharding:
    """Of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._known: dict[Moved, int] = {}
        orders = job.schedule.orders
        self.halves = any(act.what == Pass.W for order in orders for slot in order for act in slot)

    def layer(self, part: Stage) -> LayerMoves:
        """Of one layer with the ends of the model that lie beside it."""
        plan = self._job.plan(part)
        every = in_passes(plan.shards, *parameters_of(plan), plan.gradient_bytes)
        once = after_step(plan.shards, *parameters_of(plan), plan.gradient_bytes)
        return LayerMoves(*(self._ps(plan, moves) for moves in (*every, *once)))

    def passes(self, moves: Sequence[LayerMoves], forward: Ps, backward: Ps) -> tuple[int, int]:
        """ps by which the passes of a micro-batch are longer; compute of each layer in ps, first layer first."""
        gather, reduce = [one.gather for one in moves], [one.reduce for one in moves]
        none = [0] * len(moves)
        return self._longer(forward, gather, none), self._back(backward, gather, reduce)

    def once(self, moves: Sequence[LayerMoves], forward: Ps, backward: Ps) -> tuple[int | None, int | None]:
        """What is seen of reducing in the last backward pass, and of gathering in the next step's first forward one;
        None where it isn't beside them.
        """
        gather, every = [one.gather for one in moves], [one.reduce for one in moves]
        last = [one.reduce + one.last_reduce for one in moves]
        job, none = self._job, [0] * len(moves)
        reduced = self._back(backward, gather, last) - self._back(backward, gather, every)
        gathered = self._longer(forward, [one.next_gather for one in moves], none)
        return reduced if job.reduce_beside else None, gathered if job.gather_beside else None

    def _back(self, compute: Ps, gather: Ps, reduce: Ps) -> int:
        """Last layer first; where gradients of weights are a pass of their own, it is the half that hides."""
        compute = [one // 2 for one in compute] if self.halves else compute
        return self._longer(compute[::-1], gather[::-1], reduce[::-1])

    def _longer(self, compute: Ps, ahead: Ps, behind: Ps) -> int:
        none = [0] * len(compute)
        seen = 0 if self._job.gather_beside else sum(ahead)
        seen += 0 if self._job.reduce_beside else sum(behind)
        return seen + unhidden(
            compute, ahead if self._job.gather_beside else none, behind if self._job.reduce_beside else none
        )

    def _ps(self, plan: StepPlan, moves: Iterable[Moved]) -> int:
        """One after the other."""
        total = 0
        for one in moves:
            if one not in self._known:
                self._known[one] = int(to_ps(plan.fabric.alone(coflow_of(plan, one))))
            total += self._known[one]
        return total


def unhidden(compute: Ps, ahead: Ps, behind: Ps) -> int:
    """ps by which layers in order take longer: ahead[l] is done before layer l computes, and runs beside the one
    before it; behind[l] runs beside the one after it.
    """
    beside = [
        (ahead[number + 1] if number + 1 < len(compute) else 0) + (behind[number - 1] if number else 0)
        for number in range(len(compute))
    ]
    more = sum(max(0, moved - spare) for moved, spare in zip(beside, compute, strict=True))
    return ahead[0] + more + behind[-1]


def moved_ps(job: Job, rank: int) -> tuple[int, int]:
    """ps of a step that a pipeline rank is inside collectives of its passes, hidden or not: gathering parameters in all
    forward passes (backward ones gather as much again), and reducing gradients.
    """
    sharding, gather, reduce = Sharding(job), 0, 0
    for stage, passes in job.passed(rank):
        for part in stage.alone():
            layer = sharding.layer(part)
            gather, reduce = gather + passes * layer.gather, reduce + passes * layer.reduce
    return gather, reduce


def data_parallel_bytes(job: Job, rank: int) -> float:
    """Bytes that a pipeline rank sends in a step to reduce gradients and to gather parameters and whole matrices."""
    total = 0.0
    for stage, passes in job.passed(rank):
        plan = job.plan(stage)
        of = (plan.shards, *parameters_of(plan), plan.gradient_bytes)
        (gather, reduce), once = in_passes(*of), after_step(*of)
        every = 2 * sum(one.sent for one in gather) + sum(one.sent for one in reduce)
        total += passes * every + sum(one.sent for moves in once for one in moves)
        whole = whole_matrices(plan)
        total += whole.sent_bytes if whole else 0.0
    return total
