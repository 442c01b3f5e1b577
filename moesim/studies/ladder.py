"""Where the time went: replays of the same step, each with one more thing real; what each adds is a part of its time.

balanced rows, no network = ideal_compute_s; with the host = + other_s; real rows = + imbalance_s; port loads =
+ exposed_comm_s; computing slower beside transfers, where the scenario says so = + interference_s; fluid network =
+ contention_s (None where it was not played); faults, where the scenario has any = + fault_s. Each rung is a lower
bound of the next one by construction: lanes only get longer (`Lowered.play_as`), the order of a stream is fixed, and
port loads are never above the fluid time. Source: DESIGN "Where the time went".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.engine import (
    FLUID_GPUS,
    NEVER,
    Contention,
    Fault,
    TaskGraph,
    Timeline,
    choose_level,
    contention,
    evaluate,
    mean_factors,
    simulate,
)
from moesim.errors import Deadlock
from moesim.step import Lowered, StepPlan
from moesim.studies.parts import breakdown
from moesim.studies.scenario import NetworkSection
from moesim.units import show_seconds, to_ps

SHOWN_WAITERS = 4
SHORTEST = 1e-12  # seconds of a step


@dataclass(frozen=True)
class Ladder:
    """The timeline of the last rung that was played, the seconds of each rung, why the last one was chosen, and what
    there is to say about faults. capacity float64[L] B/s: of the links as they were played, on the mean over the step
    where faults changed it; estimated: what the fluid
    network adds to the timeline's step where it was not played, but a few layers of it were.
    """

    timeline: Timeline
    capacity: npt.NDArray[np.float64]
    breakdown: Mapping[str, float | None]
    player: str
    reason: str
    notes: tuple[str, ...] = ()
    estimated: Contention | None = None

    @property
    def step_seconds(self) -> float:
        """The step, with what was estimated of it."""
        return self.timeline.step_seconds + (self.estimated.seconds if self.estimated else 0.0)

    @property
    def utilisation(self) -> npt.NDArray[np.float64]:
        """float64[L]: bytes over what a link could have carried in the step, 0 where it carried none."""
        could = self.capacity * max(self.step_seconds, SHORTEST)
        carried = self.timeline.link_bytes
        return np.divide(carried, could, out=np.zeros(len(could)), where=carried > 0)

    @property
    def contention(self) -> str:
        """Where the figure of contention comes from, or why there is none."""
        if self.estimated is not None:
            return str(self.estimated)
        return "played" if self.breakdown["contention_s"] is not None else f"not played: {self.reason}"


def climb(
    plan: StepPlan,
    lowered: Lowered,
    network: NetworkSection,
    draw: Mapping[str, float],
    faults: Sequence[Fault] = (),
    *,
    loop: bool = False,
) -> Ladder:
    """Play the step rung by rung; `draw` holds one factor per error family; loop: it is one of many, played by port
    loads with an estimate of contention (see choose_level). Raises Deadlock, BadInput.
    """
    capacity = plan.fabric.capacity / draw.get("network", 1.0)
    graph = lowered.play_as(draw)
    ideal, hosted, real = (
        evaluate(one, capacity, network="none").step_ps
        for one in (
            lowered.play_as(draw, balanced=True, host=False), lowered.play_as(draw, balanced=True), graph,
        )
    )  # fmt: skip
    names = plan.fabric.link_name
    timeline = evaluate(graph, capacity, network="port_load", link_name=names)
    rungs: list[tuple[str, int | None]] = [
        ("ideal_compute_s", ideal), ("other_s", hosted), ("imbalance_s", real), ("exposed_comm_s", timeline.step_ps),
    ]  # fmt: skip
    speed, unslowed = plan.speed(graph), timeline.step_ps
    if speed:
        timeline = evaluate(graph, capacity, network="port_load", speed=speed, link_name=names)
        rungs.append(("interference_s", timeline.step_ps))
    idle = ("overlap.interference changes nothing here: no transfer that runs beside computing makes the step longer",)
    beside = idle if speed and timeline.step_ps == unslowed else ()
    player, reason = _level(plan, network, any(fault.at < timeline.step_seconds for fault in faults), loop)
    shared, estimated = None, None
    if player == "simulate":
        timeline = simulate(graph, capacity, window=network.merged, speed=speed, link_name=names)
        shared = timeline.step_ps
        if faults:
            timeline = simulate(
                graph, capacity, window=network.merged, faults=faults, speed=speed, link_name=names
            )  # fmt: skip
            _check_end(graph, timeline)
    elif loop and network.level == "auto" and plan.layout.world <= FLUID_GPUS:
        estimated = contention(graph, capacity)
        shared = timeline.step_ps + int(to_ps(estimated.seconds))
    rungs += [("contention_s", shared), *([("fault_s", timeline.step_ps)] if faults else [])]
    notes = (*beside, *_fault_notes(timeline, faults))
    left = capacity * mean_factors(faults, len(capacity), timeline.step_ps)
    return Ladder(timeline, left, breakdown(rungs), player, reason, notes, estimated)


def _level(plan: StepPlan, network: NetworkSection, fault_in_step: bool, loop: bool) -> tuple[str, str]:
    asked = None if network.level == "auto" else network.level
    cluster = plan.fabric.cluster
    player, reason = choose_level(
        gpus=plan.layout.world,
        oversubscription=cluster.oversubscription,
        collides=cluster.collides,
        fault_in_step=fault_in_step,
        loop=loop,
        asked=asked,
    )
    merged = f", completions within {network.merged:.0%} of their age merged" if network.merged else ""
    return player, reason + (merged if player == "simulate" else "")


def _check_end(graph: TaskGraph, timeline: Timeline) -> None:
    """Raises Deadlock where a fault that is never repaired keeps the step from ending."""
    if timeline.complete:
        return
    never = [task for task in range(graph.num_tasks) if timeline.task_end[task] == NEVER]
    standing = [task for task in never if timeline.status[task] == "stalled"] or never
    shown = ", ".join(graph.describe(task) for task in standing[:SHOWN_WAITERS])
    more = f" and {len(standing) - SHOWN_WAITERS} more" if len(standing) > SHOWN_WAITERS else ""
    raise Deadlock(
        f"simulated deadlock: the step never ends, {shown}{more} stalled by {'; '.join(timeline.stopped_by)}",
        way_out="until: when it is repaired; for a link also then: reroute or abort",
    )


def _fault_notes(timeline: Timeline, faults: Sequence[Fault]) -> tuple[str, ...]:
    """What happened to transfers, and which faults came too late to matter."""
    notes = []
    for status in ("stalled", "rerouted", "aborted"):
        if count := timeline.status.count(status):
            lost = ", what crossed dead links is lost" if status == "aborted" else ""
            notes.append(f"faults: {count} of {len(timeline.status)} tasks {status}{lost}")
    late = [fault for fault in faults if fault.at >= timeline.step_seconds]
    if late:
        step = show_seconds(timeline.step_seconds)
        notes.append(f"faults: {len(late)} come after the step has ended ({step}) and change nothing")
    return tuple(notes)
