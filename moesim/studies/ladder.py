"""Where the time went: replays of the same step, each with one more thing real; what each adds is a part of its time.

balanced rows, no network = ideal_compute_s; with the host = + other_s; real rows = + imbalance_s; port loads =
+ exposed_comm_s; fluid network = + contention_s (None where it was not played); faults, where the scenario has any =
+ fault_s. Each rung is a lower bound of the next one by construction: lanes only get longer (`Lowered.play_as`), the
order of a stream is fixed, and port loads are never above the fluid time. Source: DESIGN "Where the time went".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moesim.engine import NEVER, Fault, TaskGraph, Timeline, choose_level, evaluate, simulate
from moesim.errors import Deadlock
from moesim.step import Lowered, StepPlan
from moesim.studies.parts import breakdown
from moesim.studies.scenario import NetworkSection
from moesim.units import show_seconds

SHOWN_WAITERS = 4


@dataclass(frozen=True)
class Ladder:
    """The timeline of the last rung that was played, the seconds of each rung, why the last one was chosen, and what
    there is to say about faults.
    """

    timeline: Timeline
    breakdown: Mapping[str, float | None]
    player: str
    reason: str
    notes: tuple[str, ...] = ()


def climb(
    plan: StepPlan,
    lowered: Lowered,
    network: NetworkSection,
    draw: Mapping[str, float],
    faults: Sequence[Fault] = (),
) -> Ladder:
    """Play the step rung by rung; `draw` holds one factor per error family. Raises Deadlock."""
    capacity = plan.fabric.capacity / draw.get("network", 1.0)
    graph = lowered.play_as(draw)
    ideal, hosted, real = (
        evaluate(one, capacity, network="none").step_ps
        for one in (
            lowered.play_as(draw, balanced=True, host=False), lowered.play_as(draw, balanced=True), graph,
        )
    )  # fmt: skip
    timeline = evaluate(graph, capacity, network="port_load")
    rungs: list[tuple[str, int | None]] = [
        ("ideal_compute_s", ideal), ("other_s", hosted), ("imbalance_s", real), ("exposed_comm_s", timeline.step_ps),
    ]  # fmt: skip
    player, reason = _level(plan, network, any(fault.at < timeline.step_seconds for fault in faults))
    contention = None
    if player == "simulate":
        names = plan.fabric.link_name
        timeline = simulate(graph, capacity, window=network.window, link_name=names)
        contention = timeline.step_ps
        if faults:
            timeline = simulate(graph, capacity, window=network.window, faults=faults, link_name=names)
            _check_end(graph, timeline)
    rungs += [("contention_s", contention), *([("fault_s", timeline.step_ps)] if faults else [])]
    return Ladder(timeline, breakdown(rungs), player, reason, _fault_notes(timeline, faults))


def _level(plan: StepPlan, network: NetworkSection, fault_in_step: bool) -> tuple[str, str]:
    asked = None if network.level == "auto" else network.level
    cluster = plan.fabric.cluster
    return choose_level(
        oversubscription=cluster.oversubscription, collides=cluster.collides, fault_in_step=fault_in_step, asked=asked
    )


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
            lost = ", their bytes are missing from what followed" if status == "aborted" else ""
            notes.append(f"faults: {count} of {len(timeline.status)} tasks {status}{lost}")
    late = [fault for fault in faults if fault.at >= timeline.step_seconds]
    if late:
        step = show_seconds(timeline.step_seconds)
        notes.append(f"faults: {len(late)} come after the step has ended ({step}) and change nothing")
    return tuple(notes)
