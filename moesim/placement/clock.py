"""StepClock: how long a step takes under a placement, played by the simulator on windows of recorded tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine import FLUID_GPUS, TaskGraph, contention, evaluate
from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.windows import Tokens, Windows
from moesim.routing.sources.replay import Recorded, Recording
from moesim.step import Batch, Lowered, StepPlan, lower
from moesim.step.fill import Refill, needs_graph


class Ceilings(NamedTuple):
    """Seconds of a step: as it is; with perfect balance and the recorded traffic; with the recorded balance and no
    traffic; with both. What a placement could gain at most by either, and in all.
    """

    real: float
    balanced: float
    silent: float
    ideal: float


@dataclass(frozen=True)
class StepClock:
    """A step of `batch` by `plan`, whose own placement and routing are replaced.

    Request r of the batch is the r-th stretch of `block` consecutive recorded tokens, starting over where the windows
    end: 2,048 for sequences of prefill or training, 1 for decode, where each request brings one token.
    """

    plan: StepPlan
    batch: Batch
    block: int = 2048

    def seconds(self, placement: Placement, windows: Windows) -> float:
        """Time of the step, collectives by port loads, and what a layer played both ways adds to them.

        Filled anew, not lowered anew, where the plan's steps can be (step/fill.py). Raises BadInput where windows are
        counts only.
        """
        capacity = self.plan.fabric.capacity
        if self._refill is None:
            graph = self.lowered(placement, windows).graph
            names, speed = self.plan.fabric.link_name, self.plan.speed(graph)
            return evaluate(graph, capacity, speed=speed, link_name=names).step_seconds + self._contention(graph)
        refill = self._refill.elsewhere(placement, self._routing(placement, windows))
        values = refill.fill(self.batch)
        alone = refill.play(values) * 1e-12
        return alone + self._contention(refill.skeleton.graph_of(values))

    @cached_property
    def _refill(self) -> Refill | None:
        """None where a plan's steps need the graph player."""
        return None if needs_graph(self.plan)[0] else Refill(self.plan)

    def _contention(self, graph: TaskGraph) -> float:
        few = self.plan.layout.world <= FLUID_GPUS
        return contention(graph, self.plan.fabric.capacity).seconds if few else 0.0

    def ceilings(self, placement: Placement, windows: Windows) -> Ceilings:
        """The same step with all rows balanced, and with bytes that take no time. Raises as `seconds`."""
        found, capacity = self.lowered(placement, windows), self.plan.fabric.capacity
        speed = self.plan.speed(found.graph)
        return Ceilings(
            evaluate(found.graph, capacity, speed=speed).step_seconds,
            evaluate(found.play_as({}, balanced=True), capacity, speed=speed).step_seconds,
            evaluate(found.graph, capacity, network="none").step_seconds,
            evaluate(found.play_as({}, balanced=True), capacity, network="none").step_seconds,
        )

    @property
    def overlapped(self) -> bool:
        """Whether the schedule lets one part of the batch compute while another communicates."""
        return self.plan.schedule.overlaps

    @property
    def by_node(self) -> bool:
        """Whether a token goes once to each node, whatever number of its experts is there."""
        return self.plan.dispatch.algorithm.deduplicates == "node"

    def lowered(self, placement: Placement, windows: Windows) -> Lowered:
        """The step before it is played. Raises BadInput where windows are counts only."""
        plan = replace(self.plan, placement=placement, routing=self._routing(placement, windows))
        return lower(plan, (self.batch,))

    def _routing(self, placement: Placement, windows: Windows) -> BlockSource:
        if windows.tokens is None:
            raise BadInput("a step cannot be played from counts", where=windows.name, way_out="a trace with tokens")
        return BlockSource(windows.name, windows.tokens, placement.num_experts, self.block)


class Blocks(Recording):
    """tokens [layers, T, k] in blocks of `block`: each is a request, and request r takes the r-th, modulo their number.

    Raises BadInput for fewer tokens than a block has.
    """

    def __init__(self, name: str, tokens: Tokens, block: int) -> None:
        count = tokens.shape[1] // block
        if not count:
            raise BadInput(f"{tokens.shape[1]} tokens hold no block of {block}", where=name, way_out="longer windows")
        self._table = np.ascontiguousarray(tokens[:, : count * block].transpose(1, 0, 2), dtype=np.uint16)
        self.start, self.length = np.arange(count) * block, np.full(count, block)

    def requests(self, request: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """See Recording."""
        return request % len(self.start)


class BlockSource(Recorded):
    """Blocks as a RoutingSource."""

    basis = "recorded"
    notes: tuple[str, ...] = ()

    def __init__(self, name: str, tokens: Tokens, num_experts: int, block: int) -> None:
        self.name, self.num_experts = name, num_experts
        self.moe_layers, _, self.top_k = tokens.shape
        self.recording = Blocks(name, tokens, block)
