"""Where the time went: replays of the same step, each with one more thing real, whose differences add up to its time.

balanced rows, no network = ideal_compute_s; real rows = + imbalance_s; port loads = + exposed_comm_s; fluid network =
+ contention_s (None where it was not played); host and the rest = other_s. Source: DESIGN "Where the time went".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moesim.engine import Timeline, choose_level, evaluate, simulate
from moesim.step import Lowered, StepPlan
from moesim.studies.scenario import NetworkSection


@dataclass(frozen=True)
class Ladder:
    """The timeline of the last rung that was played, the seconds of each rung, and why the last one was chosen."""

    timeline: Timeline
    breakdown: Mapping[str, float | None]
    player: str
    reason: str


def climb(plan: StepPlan, lowered: Lowered, network: NetworkSection, draw: Mapping[str, float]) -> Ladder:
    """Play the step rung by rung; `draw` holds one factor per error family."""
    capacity = plan.fabric.capacity / draw.get("network", 1.0)
    graph = lowered.play_as(draw)
    ideal = evaluate(lowered.play_as(draw, balanced=True, host=False), capacity, network="none").step_seconds
    hosted = evaluate(lowered.play_as(draw, balanced=True), capacity, network="none").step_seconds
    real = evaluate(graph, capacity, network="none").step_seconds
    timeline = evaluate(graph, capacity, network="port_load")
    loaded = timeline.step_seconds
    asked = None if network.level == "auto" else network.level
    cluster = plan.fabric.cluster
    player, reason = choose_level(oversubscription=cluster.oversubscription, collides=cluster.collides, asked=asked)
    contention: float | None = None
    if player == "simulate":
        timeline = simulate(graph, capacity, network="fluid", window=network.window)
        contention = timeline.step_seconds - loaded
    breakdown = {
        "ideal_compute_s": ideal,
        "imbalance_s": real - hosted,
        "exposed_comm_s": loaded - real,
        "contention_s": contention,
        "bubble_s": 0.0,
        "other_s": hosted - ideal,
    }
    return Ladder(timeline, breakdown, player, reason)
