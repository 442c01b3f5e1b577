"""Where the time went: replays of the same step, each with one more thing real, whose differences add up to its time.

balanced rows, no network = ideal_compute_s; real rows = + imbalance_s; port loads = + exposed_comm_s; fluid network =
+ contention_s (None where it was not played); host and the rest = other_s. Source: DESIGN "Where the time went".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moesim.engine import Timeline, evaluate, simulate

from moesim.hardware import Cluster
from moesim.step import Lowered, StepPlan
from moesim.studies.scenario import NetworkSection

VALID_OVERSUBSCRIPTION = 2.0  # port loads are 0.9977 of the exact makespan at 2:1 and 0.812 at 4:1 with skew


@dataclass(frozen=True)
class Ladder:
    """The timeline of the last rung that was played, the seconds of each rung, and why the last one was chosen."""

    timeline: Timeline
    breakdown: Mapping[str, float | None]
    player: str
    reason: str


def choose_player(network: NetworkSection, cluster: Cluster) -> tuple[str, str]:
    """("evaluate" | "simulate", why): fluid where the user asks for it or port loads are not valid."""
    if network.level == "fluid":
        return "simulate", "network.level is fluid"
    if network.level == "port_load":
        return "evaluate", "network.level is port_load"
    if cluster.oversubscription > VALID_OVERSUBSCRIPTION:
        return "simulate", f"oversubscription {cluster.oversubscription:g} is above {VALID_OVERSUBSCRIPTION:g}:1"
    return "evaluate", f"oversubscription {cluster.oversubscription:g} is at most {VALID_OVERSUBSCRIPTION:g}:1"


def climb(plan: StepPlan, lowered: Lowered, network: NetworkSection, draw: Mapping[str, float]) -> Ladder:
    """Play the step rung by rung; `draw` holds one factor per error family."""
    capacity = plan.fabric.capacity / draw.get("network", 1.0)
    graph = lowered.play_as(draw)
    ideal = evaluate(lowered.play_as(draw, balanced=True, host=False), capacity, network="none").step_seconds
    hosted = evaluate(lowered.play_as(draw, balanced=True), capacity, network="none").step_seconds
    real = evaluate(graph, capacity, network="none").step_seconds
    timeline = evaluate(graph, capacity, network="port_load")
    loaded = timeline.step_seconds
    player, reason = choose_player(network, plan.fabric.cluster)
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
