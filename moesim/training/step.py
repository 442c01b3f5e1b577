"""The time of a pipelined step: passes of each stage played by themselves, then put in the pipeline's order."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.schedules.pipelines import Pass, Played, Slot, play
from moesim.training.job import Job
from moesim.training.passes import Layers, Passes
from moesim.units import from_ps, to_ps

BF16 = 2


@dataclass(frozen=True)
class StepTime:
    """passes: of each stage; played: the pipeline; ranks: stages of each rank.

    Ranks of a stage are alike (even rows), so one stands for all and
    nobody waits inside a stage.
    """

    passes: tuple[Passes, ...]
    played: Played
    transfer: int
    ranks: tuple[tuple[int, ...], ...]

    @property
    def seconds(self) -> float:
        """Until the last stage has its new parameters."""
        after = [sum(self.passes[stage].after for stage in stages) for stages in self.ranks]
        return float(from_ps(max(end[-1] + more for end, more in zip(self.played.end, after, strict=True))))


def train_step(job: Job) -> StepTime:
    """Play one step. Raises BadInput, Deadlock."""
    layers = Layers(job)
    passes = tuple(layers.passes(stage) for stage in job.stages)
    transfer = _handed_on(job)

    def price(_rank: int, slot: Slot) -> int:
        return sum(_seconds(passes[act.stage], act.what) for act in slot)

    played = play(job.schedule.orders, price, lambda source, target: transfer)
    homes = [job.schedule.rank_of(0, stage.number) for stage in job.stages]
    ranks = tuple(tuple(stage for stage, home in enumerate(homes) if home == rank) for rank in range(job.pipeline))
    return StepTime(passes, played, transfer, ranks)


def _seconds(of: Passes, what: Pass) -> int:
    if what == Pass.F:
        return of.forward
    return of.backward if what == Pass.B else of.backward // 2


def _handed_on(job: Job) -> int:
    """Picoseconds that a rank's slice of the stream is on its way to the same rank of the next stage."""
    if job.pipeline == 1:
        return 0
    links = job.cluster.path[0, job.layout.world]
    used = links[links >= 0]
    rate = float(job.cluster.link_capacity[used].min())
    return int(to_ps(BF16 * job.tokens_here * job.model.hidden_size / rate))
