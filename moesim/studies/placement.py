"""The experts section of a scenario -> Placement: a strategy's, planned on earlier tokens, or a file's."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moesim.errors import BadInput, placed
from moesim.layout import Placement
from moesim.models import MoEModel
from moesim.placement import PlacementProblem, StepClock, Windows, dispatch, strategies
from moesim.placement import plan as plan_experts
from moesim.placement.formats import SUFFIXES, Frame, format_of, read_placement
from moesim.routing import NO_EXPERT
from moesim.step import Batch, StepPlan
from moesim.step.dispatch import EVEN
from moesim.studies.load import Loaded

PLANNING_TOKENS = 16_384  # tokens whose routing decides where experts stand
PLANNING_REQUEST = 1 << 40  # their requests are never those of a step
WINDOW = 2048
TIME_LIMIT = 60.0  # seconds that a search may take inside a run
KEY = "experts.placement"


class Placed(NamedTuple):
    """The placement, where it came from, what the Result has to say about it, and how a token picks a replica
    (step/dispatch.py)."""

    placement: Placement
    source: str
    notes: tuple[str, ...] = ()
    replicas: int = EVEN


def frame_of(model: MoEModel, ranks: int) -> Frame:
    """What placement files of a model leave out."""
    return Frame(ranks, model.num_experts, tuple(model.moe_layers), model.num_layers)


def first_placement(loaded: Loaded, model: MoEModel, ranks: int) -> Placement:
    """The file's, or experts in order in the slots that the scenario asks for. Raises BadInput, also where these do
    not divide.
    """
    if _is_file(loaded):
        return _from_file(loaded, frame_of(model, ranks))
    if not model.routed:
        return Placement.none(ranks)
    redundant = loaded.scenario.experts.redundant
    slots = model.num_experts + redundant
    if slots > model.num_experts * ranks:
        most = model.num_experts * (ranks - 1)
        raise BadInput(
            f"{redundant} redundant experts: {ranks} ranks would hold some twice",
            where=loaded.where("experts.redundant"),
            way_out=f"redundant: {most} or less",
        )
    if slots % ranks:
        more = redundant + -slots % ranks
        near = [str(one) for one in (more - ranks, more) if 0 <= one <= model.num_experts * (ranks - 1)]
        raise BadInput(
            f"{model.num_experts} experts + {redundant} redundant do not divide over {ranks} ranks",
            where=loaded.where("experts.redundant"),
            way_out=f"redundant: {' or '.join(near)}",
        )
    layers = len(model.moe_layers)
    expert = np.tile(np.arange(slots, dtype=np.int32) % model.num_experts, (layers, 1))
    rank = np.tile(np.arange(slots, dtype=np.int32) // (slots // ranks), (layers, 1))
    return Placement(expert, rank, model.num_experts, ranks)


def find_placement(loaded: Loaded, plan: StepPlan, batch: Batch, seed: int) -> Placed:
    """The placement that the scenario names, for a plan that holds `first_placement`. Raises BadInput, DoesNotFit."""
    name = loaded.scenario.experts.placement
    if _is_file(loaded):
        return _of_file(Path(name), plan)
    strategies.find(name, where=loaded.where(KEY))
    if name == "contiguous":
        return Placed(_in_order(loaded, plan.placement), name)
    earlier = replace(plan, routing=plan.routing.earlier())
    with placed(loaded.where(KEY)):
        answer = plan_experts(_problem(earlier, batch), name, TIME_LIMIT, seed)
    source = f"{name}, planned on {plan.routing.planned_on}"
    notes = (*answer.notes, *_spread_note(plan))
    return Placed(answer.placement, source, tuple(f"placement {name}: {note}" for note in notes))


def _of_file(path: Path, plan: StepPlan) -> Placed:
    """A file's experts, and replicas picked as the engine of its format picks them, where it has a way of its own."""
    rule = dispatch.find(format_of(path).dispatch)
    own = rule.way != EVEN and plan.placement.num_slots > plan.placement.num_experts
    notes = (f"replicas are picked as {rule.name} does, whose placement file it is",) if own else ()
    return Placed(plan.placement, f"{path} (sha256 {_digest(path)})", notes, rule.way if own else EVEN)


def _spread_note(plan: StepPlan) -> list[str]:
    """Planners know one GPU a rank."""
    ways = plan.layout.expert_tensor_parallel
    return [f"planned as if each expert stood on one GPU, of the {ways} that share its width"] if ways > 1 else []


def _is_file(loaded: Loaded) -> bool:
    return Path(loaded.scenario.experts.placement).suffix.lower() in SUFFIXES


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _in_order(loaded: Loaded, placement: Placement) -> Placement:
    if placement.num_slots > placement.num_experts:
        raise BadInput(
            "redundant experts need a placement that uses them", where=loaded.where(KEY), way_out="placement: greedy"
        )
    return placement


def _from_file(loaded: Loaded, frame: Frame) -> Placement:
    """A file's redundant slots count; where the scenario names some, they have to be as many."""
    placement = read_placement(loaded.scenario.experts.placement, frame)
    asked, found = loaded.scenario.experts.redundant, placement.num_slots - placement.num_experts
    if asked not in (0, found):
        raise BadInput(
            f"{asked} redundant slots, {loaded.scenario.experts.placement} has {found}",
            where=loaded.where("experts.redundant"),
            way_out=f"redundant: {found}",
        )
    return placement


def _problem(plan: StepPlan, batch: Batch) -> PlacementProblem:
    """Of the first expert-parallel group; the others hold the same."""
    clock = StepClock(plan, batch, int(batch.query[0]))
    return PlacementProblem.on(
        plan.fabric.cluster,
        planning_window(plan),
        ranks=plan.layout.expert_parallel,
        redundant=plan.placement.num_slots - plan.placement.num_experts,
        clock=clock,
        groups=plan.model.num_groups,
    )


def planning_window(plan: StepPlan) -> Windows:
    """The routing of tokens whose requests no step names."""
    request = PLANNING_REQUEST + np.arange(PLANNING_TOKENS) // 64
    position = np.arange(PLANNING_TOKENS) % 64
    layers = [plan.routing.experts(layer, request, position) for layer in range(len(plan.model.moe_layers))]
    tokens = np.full((len(layers), len(layers[0]), max(one.shape[1] for one in layers)), NO_EXPERT, dtype=np.uint16)
    for layer, experts in zip(tokens, layers, strict=True):  # a router may give other numbers of experts in each layer
        layer[:, : experts.shape[1]] = experts
    return Windows.of_tokens("planning window", tokens, plan.model.num_experts, WINDOW)
