"""`lower`: a batch on a plan becomes a TaskGraph. Pure: no clock, no random draw; routing is looked up layer by layer.

Islands of ranks that hold all experts together do not talk to each other inside a layer, so each is lowered by itself;
what spans islands (gradients, parameters) comes after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.step.batch import Batch
from moesim.step.island import Island
from moesim.step.lowered import Lowered, Recorder
from moesim.step.optimizer import optimizer_step
from moesim.step.plan import StepPlan


def lower(plan: StepPlan, batches: Sequence[Batch]) -> Lowered:
    """One step: a single decode or prefill batch, or the micro-batches of a training step. Raises BadInput.

    Every batch covers all ranks of the layout; training runs its micro-batches one after the other and ends with
    the reduction of gradients and the optimizer.
    """
    check(plan, batches)
    experts, ranks = plan.placement.num_experts, plan.layout.world
    recorder = Recorder(
        load=np.zeros((len(plan.model.moe_layers), experts), dtype=np.int64),
        rank_load=np.zeros((len(plan.model.moe_layers), ranks), dtype=np.int64),
        sent=np.zeros((ranks, ranks), dtype=np.int64),
        received=np.zeros((len(plan.model.moe_layers), ranks), dtype=np.int64),
    )
    last = [_lower_island(plan, recorder, group, batches) for group in plan.layout.islands()]
    if batches[0].training:
        optimizer_step(plan, recorder, last)
    return recorder.finish()


def check(plan: StepPlan, batches: Sequence[Batch]) -> None:
    """Refuse what the nouns allow but no engine runs. Raises BadInput."""
    algorithm = plan.dispatch.algorithm
    if algorithm.travels and batches[0].training:
        raise BadInput(f"{algorithm.name} is for inference, not for training", way_out="dispatch: nccl")
    _check_parts(plan, batches)


def _check_parts(plan: StepPlan, batches: Sequence[Batch]) -> None:
    parts = plan.schedule.micro_batches
    fewest = min(int(batch.tokens_of_rank.min()) for batch in batches)
    if fewest < parts:
        raise BadInput(
            f"the schedule cuts a batch into {parts} parts, but a rank has {fewest} token(s)",
            where="overlap.schedule",
            way_out="schedule: sequential, or more tokens a GPU",
        )


def _lower_island(
    plan: StepPlan, recorder: Recorder, group: npt.NDArray[np.int32], batches: Sequence[Batch]
) -> list[int]:
    island = Island(plan, recorder, group)
    island.host()
    for number, batch in enumerate(batches):
        parts = batch.on_ranks(group).split(plan.schedule.micro_batches)
        island.forward(parts, number)
        if batch.training:
            island.backward(parts, number)
    return island.last_tasks()
