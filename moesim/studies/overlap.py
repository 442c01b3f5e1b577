"""`overlap:` of a scenario -> a schedule, what it decides by playing, and what a result has to say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from moesim.errors import BadInput
from moesim.schedules import INTRA, Schedule, find_schedule
from moesim.step import Batch, Lowered, StepPlan
from moesim.step.gaps import with_degrees, with_gradients
from moesim.step.optimizer import reduced_before
from moesim.studies.load import Loaded
from moesim.studies.scenario import StepOverlapSection

AUTO: Final = "auto"
BELIEF: Final = "parts and gaps are chosen on even rows and links without contention"


def schedule_of(loaded: Loaded) -> Schedule:
    """As asked for; degrees that are `auto` are still the usual ones. Raises BadInput."""
    overlap = loaded.scenario.overlap
    found = find_schedule(overlap.schedule, loaded.where("overlap.schedule"))
    if loaded.scenario.batch.phase != "train":
        _refuse_training(loaded, overlap, found)
    degree, backward = (None if one == AUTO else one for one in (overlap.degree, overlap.degree_backward))
    made = found(shared_beside=overlap.shared_expert, degree=degree, degree_backward=backward)
    if AUTO in (overlap.degree, overlap.degree_backward) and not found.usual_degree:
        raise BadInput(f"{found.name} has no degree to choose", where=loaded.where("overlap.degree"),
                       way_out="leave degree out, or schedule: tutel")  # fmt: skip
    return made if overlap.inter_intra is None else made.changed(apart=overlap.inter_intra)


def decided(overlap: StepOverlapSection, plan: StepPlan, batches: Sequence[Batch]) -> StepPlan:
    """The plan with what its schedule decides by playing. Raises BadInput."""
    forward, backward = (one == AUTO for one in (overlap.degree, overlap.degree_backward))
    backward = backward or (forward and overlap.degree_backward is None)
    if forward or backward:
        plan = with_degrees(plan, batches, forward=forward, backward=backward)
    if plan.schedule.slices and len(plan.layout.islands()) > 1:
        groups, ranks = len(plan.layout.islands()), plan.layout.world
        what = f"{plan.schedule.name}: gradients go into the gaps of one group that has all experts, here are {groups}"
        raise BadInput(what, where="overlap.schedule", way_out=f"parallel.expert_parallel_size so that {ranks} GPUs "
                       "hold them together, or schedule: tutel")  # fmt: skip
    return with_gradients(plan, batches)


def overlap_facts(plan: StepPlan) -> dict[str, Any]:
    """What was decided."""
    schedule = plan.schedule
    if not schedule.usual_degree:
        return {}
    whole = sum(part.parameters for part in plan.ops.spread.parts("bf16"))
    gaps = {} if schedule.slices is None else {"gradients_in_gaps": reduced_before(plan) / whole}
    return {"degree": schedule.degree, "degree_backward": schedule.degree_backward, **gaps}


def overlap_notes(plan: StepPlan, lowered: Lowered) -> list[str]:
    """What a schedule believes, and what of it comes to nothing here."""
    schedule, notes = plan.schedule, list[str]()
    if schedule.slices is not None:
        notes.append(f"{schedule.name}: {BELIEF}")
        notes += [] if schedule.fills else [f"{schedule.name}: no gap between transfers takes any gradients here"]
    if schedule.apart and INTRA not in lowered.graph.streams:
        notes.append(
            f"{schedule.name}: no transfer stays inside nodes of several (experts spread over a node, or an all-to-all "
            "in two levels): its second stream is empty"
        )
    return notes


def interference_notes(plan: StepPlan) -> list[str]:
    """That computing is taken to be slower beside transfers, where it is."""
    if plan.interference == 1.0:
        return []
    if plan.layout.world == 1:
        return ["overlap.interference changes nothing: one GPU has no transfers"]
    return [f"overlap.interference: computing takes {plan.interference:g} times as long while a transfer of its GPU is "
            "under way, transfers are not slowed: assumed"]  # fmt: skip


def _refuse_training(loaded: Loaded, overlap: StepOverlapSection, found: type[Schedule]) -> None:
    """Raises BadInput for what has only training to act on."""
    if found.trains:
        raise BadInput(f"{found.name} is an order of training steps", where=loaded.where("overlap.schedule"),
                       way_out="batch.phase: train, or schedule: tutel")  # fmt: skip
    asked: dict[str, object] = {"degree_backward": overlap.degree_backward, "inter_intra": overlap.inter_intra}
    for key, value in asked.items():
        if value is not None:
            raise BadInput("acts in training steps alone", where=loaded.where(f"overlap.{key}"),
                           way_out="leave it out, or batch.phase: train")  # fmt: skip
    if overlap.degree == AUTO:
        raise BadInput("auto plays a training step", where=loaded.where("overlap.degree"),
                       way_out="a number, or batch.phase: train")  # fmt: skip
