"""overlap: seconds of a layer when two resources work at once: the slowest rank's compute and the busiest port.

With two-batch overlap a layer takes about max(compute, port) on average over windows; without overlap their sum. Prices
come from two plays of one step, with and without its bytes, rows as they are and balanced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.loads import imbalance
from moesim.placement.objectives.nodes_touched import touches
from moesim.placement.objectives.objective import Floats
from moesim.placement.solution import NO_BOUND, Bound

if TYPE_CHECKING:
    from moesim.placement.budget import Budget
    from moesim.placement.clock import StepClock
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


@dataclass(frozen=True)
class Prices:
    """Seconds of a layer: other: compute that no placement changes; expert: per unit of max/mean; port: per unit of
    port load (tokens at the busiest node over tokens, or max/mean where rows are not merged).
    """

    other: float
    expert: float
    port: float

    @classmethod
    def of(cls, problem: PlacementProblem, clock: StepClock, placement: Placement, windows: Windows) -> Prices:
        """From the step under one placement."""
        found, capacity = clock.lowered(placement, windows), clock.plan.fabric.capacity
        even = evaluate(found.play_as({}, balanced=True), capacity, network="none").step_seconds
        real = evaluate(found.graph, capacity, network="none").step_seconds
        layers = placement.num_layers
        peak = float(imbalance(problem, placement, windows.merged()).mean())
        expert = (real - even) / layers / max(peak - 1, 1e-9)
        busiest = sum(
            float((np.bincount(_last(coflow.path), coflow.bytes, len(capacity)) / capacity).max())
            for coflow in found.graph.coflows
        )
        port = float(port_loads(problem, clock, placement, windows).mean())
        return cls(max(even / layers - expert, 0.0), expert, busiest / layers / max(port, 1e-9))


def _last(path: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """int32[F, hops], -1 padded -> the last link of each path: the port of whoever receives."""
    hops = (path >= 0).sum(axis=1)
    last: npt.NDArray[np.int64] = path[np.arange(len(path)), hops - 1].astype(np.int64)
    return last


def port_loads(problem: PlacementProblem, clock: StepClock, placement: Placement, windows: Windows) -> Floats:
    """float64[W, layers]: load of the busiest port."""
    if not clock.by_node or problem.nodes == 1:
        return imbalance(problem, placement, windows)
    assert windows.edges is not None
    reached: Floats = touches(problem, placement, windows).max(axis=2) / np.diff(windows.edges)[:, None]
    return reached


class Overlap:
    """E[max(slowest compute, busiest port)] of a layer, or of their sum where nothing overlaps."""

    name, unit = "overlap", "s"

    def evaluate(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[layers] seconds of a layer. Raises BadInput without a clock or tokens."""
        if problem.clock is None or windows.tokens is None:
            raise BadInput("the objective overlap needs a step to play", way_out="tokens, and a scenario with costs")
        prices = problem.prices
        compute = prices.other + prices.expert * imbalance(problem, placement, windows)
        port = prices.port * port_loads(problem, problem.clock, placement, windows)
        both = np.maximum(compute, port) if problem.clock.overlapped else compute + port
        result: Floats = both.mean(axis=0)
        return result

    def bound(self, problem: PlacementProblem, budget: Budget) -> Bound:
        """Perfect balance, no traffic."""
        if problem.clock is None:
            return NO_BOUND
        return Bound(problem.prices.other + problem.prices.expert, "perfect balance without traffic")
