"""The 80 % band of a step: what the known error of each family of costs does to it.

One family at a time is played at the ends of its own 80 % interval, for all its shapes at once, since an error belongs
to a family and a run and does not average out over layers; the families' effects, taken as independent, add up in
quadrature of the logarithm. Port loads are enough for that: the band is a ratio to the same player's step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from moesim.engine import Again, evaluate
from moesim.network import ENGINES
from moesim.step import Lowered
from moesim.studies.build import Built
from moesim.units import PICOSECONDS_PER_SECOND

COVERAGE = 0.8
BORROWED_WIDENS = 2.0  # constants of another device: as shapes beyond the hull
MANY_FLOWS = 500_000  # from here on the pass saves more (1 s and up) than compiling it for the first time takes
OUTSIDE_WIDENS = 2.0  # where nobody judged a family with whole ranges left out: an assumption


@dataclass(frozen=True)
class Band:
    """Factors on the step time, low <= 1 <= high; by_family: family -> (factor low, factor high) of it alone."""

    low: float
    high: float
    by_family: Mapping[str, tuple[float, float]]


def band(built: Built, lowered: Lowered) -> Band | None:
    """The band of a step; None where the costs say nothing about their error."""
    families = {family: sigma for family, sigma in spreads(built).items() if sigma > 0}
    if not families:
        return None
    clock = _Clock(built, lowered)
    median = clock.log_seconds({})
    reach = NormalDist().inv_cdf((1 + COVERAGE) / 2)
    effect = {
        family: tuple(clock.log_seconds({family: math.exp(end * reach * sigma)}) - median for end in (-1, 1))
        for family, sigma in families.items()
    }
    below, above = (math.sqrt(math.fsum(ends[side] ** 2 for ends in effect.values())) for side in (0, 1))
    return Band(
        math.exp(-below), math.exp(above), {name: (math.exp(a), math.exp(b)) for name, (a, b) in effect.items()}
    )


def spreads(built: Built) -> dict[str, float]:
    """family -> standard deviation of the logarithm, wider by the share of its shapes that nobody measured (as much as
    errors grew where whole ranges were left out of the fit); known once the step is lowered. The network's is that of
    the communication kernels in use."""
    asked, outside = built.log.asked, built.log.outside
    share = {family: outside[family] / asked[family] for family in asked}
    stated = built.costs.families
    known = {**stated, "network": _of_kernels(built, stated["network"])} if "network" in stated else stated
    return {
        family: sigma
        * math.sqrt(1 + (built.costs.widens.get(family, OUTSIDE_WIDENS) ** 2 - 1) * share.get(family, 0.0))
        for family, sigma in known.items()
        if family in asked or family == "network"
    }


def _of_kernels(built: Built, least: float) -> float:
    """The widest of the kernels that move tokens and tensors, twice as wide where its constants come from elsewhere."""
    plan, here = built.plan, built.cluster.devices[0].name
    layout = plan.layout
    used = {plan.dispatch.algorithm.kernel(plan.expert_group)}
    if layout.tensor_parallel > 1 or built.scenario.batch.phase == "train":
        used.add("nccl_ring")
        used |= {ENGINES[plan.fabric.engine]} if plan.fabric.engine else set()
    costs = [plan.fabric.communication[kernel] for kernel in used]
    return max(least, *(cost.spread * (BORROWED_WIDENS if cost.device not in ("", here) else 1.0) for cost in costs))


class _Clock:
    """Steps of one graph with other errors, in the compiled pass. It does not know when links that several collectives
    fill at once have carried all their bytes: where that is what ends the step, for links that state a latency, and
    where flows are few, all is played by `evaluate`; so are classes that slow each other.
    """

    def __init__(self, built: Built, lowered: Lowered) -> None:
        self._lowered, self._capacity = lowered, built.plan.fabric.capacity
        graph = lowered.graph
        late = any(coflow.latency is not None for coflow in graph.coflows)
        few = sum(len(coflow.bytes) for coflow in graph.coflows) < MANY_FLOWS
        self._speed = built.plan.speed(graph)
        self._again = None if late or few or self._speed or self._by_links() else Again.of(graph)
        self._links = None if self._again is None else self._again.skeleton.pairs(self._capacity)

    def _by_links(self) -> bool:
        """Whether links have bytes to carry when all tasks have ended."""
        timeline = evaluate(self._lowered.graph, self._capacity)
        return bool(timeline.step_ps > timeline.task_end.max(initial=0))

    def log_seconds(self, draw: Mapping[str, float]) -> float:
        """Of the step with each family's seconds times its factor."""
        capacity, graph = self._capacity / draw.get("network", 1.0), self._lowered.play_as(draw)
        if self._again is None or self._links is None:
            return math.log(evaluate(graph, capacity, speed=self._speed).step_seconds)
        links = self._again.skeleton.pairs(capacity) if "network" in draw else self._links
        return math.log(self._again.ps(graph.lane_ps, links) / PICOSECONDS_PER_SECOND)
