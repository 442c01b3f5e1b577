"""Advice: changes that an operator of the same model and cluster can make, each tried by playing the step again.

What a part of the breakdown costs does not say what it would save: a step whose transfers are hidden still gets longer
by 11 % when the fabric is 2:1. So nothing is advised that was not played, with the same seed and the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from moesim.errors import MoesimError
from moesim.schedules import registry
from moesim.studies.counterfactual import BOTH, ideals
from moesim.studies.load import Loaded, load_data
from moesim.studies.run import run
from moesim.studies.scenario import Scenario

RATE = "tokens_per_s_per_gpu"


class Change(NamedTuple):
    """Overrides of a scenario: a remedy that one may make, a risk that one may meet, or an ideal that nobody can buy;
    together: all of the ideals.
    """

    overrides: tuple[str, ...]
    kind: str  # "remedy", "risk", "ideal" or "together"


@dataclass(frozen=True)
class Tried:
    """A change that was played: step_s (of served requests the mean latency) and rate (tokens/s of a GPU,
    None where only the step was played) after it; refused: why it cannot be made."""

    change: str
    kind: str
    step_s: float | None
    rate: float | None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the store."""
        return dict(vars(self))


def advise(loaded: Loaded, seed: int, tell: Callable[[str], None] = lambda _: None) -> list[Tried]:
    """The step without single causes; then every change that suits it, largest rate first, those refused last."""
    tell("without one of its causes")
    pure = [
        Tried(one.name, "together" if one.name == BOTH else "ideal", one.seconds, None, one.refused)
        for one in ideals(loaded, seed)
    ]
    tried = []
    for change in changes(loaded.scenario):
        tell(" ".join(change.overrides))
        tried.append(_try(loaded, change, seed))
    return [*pure, *sorted(tried, key=lambda one: -(one.rate or 0.0))]


def changes(scenario: Scenario) -> Iterator[Change]:
    """What is tried: the layer schedule, the all-to-all and its dtype, where experts stand; slower links as a risk."""
    batch, comm, experts = scenario.batch, scenario.comm, scenario.experts
    apart = scenario.parallel.expert_parallel_size > 1
    if apart and batch.phase != "train":
        yield from (_remedy(f"overlap.schedule={name}") for name in _schedules() if name != scenario.overlap.schedule)
        suited = "deepep_low_latency" if batch.phase == "decode" else "deepep_normal"
        if comm.dispatch != suited:
            yield _remedy(f"comm.dispatch={suited}")
    if apart and comm.dispatch_dtype == "bf16":
        yield _remedy("comm.dispatch_dtype=fp8")
    if apart and scenario.routing and not scenario.routing.balanced:
        yield from _placements(experts.placement, experts.redundant, scenario.parallel.expert_parallel_size)
    if batch.phase == "decode":
        yield _remedy(f"batch.tokens_per_gpu={2 * batch.tokens_per_gpu}")
    if (scenario.cluster.nodes or 2) > 1 and apart:
        ratio = scenario.cluster.oversubscription or 1.0
        yield Change((f"cluster.oversubscription={2 * ratio:g}",), "risk")
        yield Change((f"network.efficiency={scenario.network.efficiency / 2:g}",), "risk")


def _schedules() -> list[str]:
    """Those that run a model as it was trained, and not in training alone."""
    return [name for name, schedule in registry.items() if not (schedule.notes or schedule.trains)]


def _remedy(*overrides: str) -> Change:
    return Change(overrides, "remedy")


def _placements(placement: str, redundant: int, ranks: int) -> Iterator[Change]:
    """A searched placement, and one with a slot more on every rank."""
    if placement == "contiguous":
        yield _remedy("experts.placement=greedy")
        yield _remedy("experts.placement=greedy", f"experts.redundant={redundant + ranks}")
    elif redundant:
        yield _remedy(f"experts.redundant={redundant + ranks}")


def _try(loaded: Loaded, change: Change, seed: int) -> Tried:
    named = ", ".join(change.overrides)
    try:
        result = run(load_data(deepcopy(loaded.document.data), loaded.document.source, change.overrides), seed=seed)
    except MoesimError as error:
        return Tried(named, change.kind, None, None, str(error.what))
    return Tried(named, change.kind, result.metrics["step_time_s"].value, result.metrics[RATE].value)
