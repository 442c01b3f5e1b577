"""The time of a pipelined step: passes of each stage played by themselves, then put in the pipeline's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.schedules.pipelines import Pass, Played, Slot, play
from moesim.training.job import Job
from moesim.training.passes import Layers, Pair, Passes
from moesim.units import from_ps, to_ps

BF16 = 2


@dataclass(frozen=True)
class StepTime:
    """passes: of each stage; played: the pipeline; ranks: stages of each rank; overlapped: ps of slots whose passes
    overlap, where they were played task by task: others take as long as all their compute, or all their all-to-alls.

    Ranks of a stage are alike (even rows), so one stands for all and
    nobody waits inside a stage.
    """

    passes: tuple[Passes, ...]
    played: Played
    transfer: int
    ranks: tuple[tuple[int, ...], ...]
    overlapped: Mapping[Slot, int]

    @property
    def seconds(self) -> float:
        """Until the last stage has its new parameters."""
        after = [sum(self.passes[stage].after for stage in stages) for stages in self.ranks]
        return float(from_ps(max(end[-1] + more for end, more in zip(self.played.end, after, strict=True))))

    def exposed_ps(self, slot: Slot) -> tuple[float, float, float]:
        """Of a slot what nothing hides: all-to-alls, transfers of tensor groups, sharded parameters and gradients.
        Where it was played, transfers of tensor groups may lie beside the other pass, too: what is left is theirs
        first.
        """
        exchange, ring, shard = exposed_ps(self.passes, slot)
        if slot not in self.overlapped:
            return exchange, ring, shard
        left = max(exchange + ring + self.overlapped[slot] - slot_ps(self.passes, slot), 0.0)
        return max(left - ring, 0.0), min(ring, left), shard


def train_step(job: Job, overlapped: Mapping[Slot, int] | None = None) -> StepTime:
    """Play one step; overlapped: ps of slots, where they are known (beside.py). Raises BadInput, Deadlock."""
    known = overlapped or {}
    layers = Layers(job)
    passes = tuple(layers.passes(stage) for stage in job.stages)
    transfer = handed_on_ps(job)

    def price(_rank: int, slot: Slot) -> int:
        return known[slot] if slot in known else slot_ps(passes, slot)

    played = play(job.schedule.orders, price, lambda source, target: transfer)
    ranks = tuple(tuple(stage.number for stage in job.stages_of(rank)) for rank in range(job.pipeline))
    return StepTime(passes, played, transfer, ranks, known)


def slot_ps(passes: Sequence[Passes], slot: Slot) -> int:
    """Of a slot: a forward and a backward that overlap hide each other's all-to-alls."""
    return sum(_ps(passes[act.stage].hidden if len(slot) > 1 else passes[act.stage].one, act.what) for act in slot)


def exposed_ps(passes: Sequence[Passes], slot: Slot) -> tuple[float, float, float]:
    """Of these, spread evenly over both passes, what nothing hides: all-to-alls, transfers of tensor groups, sharded
    parameters and gradients.
    """
    exchange = ring = shard = 0.0
    for act in slot:
        pair = passes[act.stage].hidden if len(slot) > 1 else passes[act.stage].one
        share = _ps(pair, act.what) / pair.whole
        exchange, ring = exchange + share * pair.exchange, ring + share * pair.ring
        shard += share * pair.shard
    return exchange, ring, shard


def _ps(of: Pair, what: Pass) -> int:
    if what == Pass.F:
        return of.forward
    return {Pass.B: of.backward, Pass.W: of.weights, Pass.D: of.backward - of.weights}[what]


def handed_on_ps(job: Job) -> int:
    """Picoseconds that a rank's slice of the stream is on its way to the same rank of the next stage."""
    if job.pipeline == 1:
        return 0
    ends = np.array([[0], [job.layout.world]], dtype=np.int32)
    rate = float(job.cluster.message_rate(*ends)[0])
    return int(to_ps(BF16 * job.tokens_here * job.model.hidden_size / rate))
