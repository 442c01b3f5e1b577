"""StepClock: how long a step takes under a placement, played by the simulator on windows of recorded tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine import FLUID_GPUS, contention, evaluate
from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.windows import Tokens, Windows
from moesim.routing.sources.source import PerToken
from moesim.step import Batch, Lowered, StepPlan, lower


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
        """Time of the step, coflows by port loads (engine.evaluate) and what a layer played both ways adds to them.

        Raises BadInput where windows are counts only.
        """
        graph, fabric = self.lowered(placement, windows).graph, self.plan.fabric
        seconds = evaluate(graph, fabric.capacity, link_name=fabric.link_name).step_seconds
        shared = contention(graph, fabric.capacity).seconds if self.plan.layout.world <= FLUID_GPUS else 0.0
        return seconds + shared

    def ceilings(self, placement: Placement, windows: Windows) -> Ceilings:
        """The same step with all rows balanced, and with bytes that take no time. Raises as `seconds`."""
        found, capacity = self.lowered(placement, windows), self.plan.fabric.capacity
        return Ceilings(
            evaluate(found.graph, capacity).step_seconds,
            evaluate(found.play_as({}, balanced=True), capacity).step_seconds,
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
        if windows.tokens is None:
            raise BadInput("a step cannot be played from counts", where=windows.name, way_out="a trace with tokens")
        routing = BlockSource(windows.name, windows.tokens, placement.num_experts, self.block)
        plan = replace(self.plan, placement=placement, routing=routing)
        return lower(plan, (self.batch,))


class BlockSource(PerToken):
    """tokens [layers, T, k] as a RoutingSource: request r takes the r-th block of them, modulo the blocks there are."""

    basis = "recorded"
    notes: tuple[str, ...] = ()

    def __init__(self, name: str, tokens: Tokens, num_experts: int, block: int) -> None:
        self.name, self.num_experts, self.block = name, num_experts, block
        self.moe_layers, length, self.top_k = tokens.shape
        self._tokens, self._length = tokens, length // block * block
        if not self._length:
            raise BadInput(f"{length} tokens hold no block of {block}", where=name, way_out="longer windows")

    def experts(
        self, layer: int, request: npt.NDArray[np.int64], position: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint16]:
        """request int64[T], position int64[T] -> uint16[T, k]."""
        rows = (request * self.block + position % self.block) % self._length
        found: npt.NDArray[np.uint16] = self._tokens[layer].take(rows, axis=0).astype(np.uint16)
        return found
