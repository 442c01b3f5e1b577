"""DualPipeV: DualPipe folded in the middle; a rank holds stage r and its mirror image, and weights are there once."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.pipelines.act import Slot
from moesim.schedules.pipelines.pipeline import Pipeline, refuse_micro_batches
from moesim.schedules.pipelines.two_way import TwoWay


class DualPipeV(Pipeline):
    """Micro-batches go down the ranks and back up (deepseek-ai/DualPipe, "cut in half" after Qi et al. 2025)."""

    name = "dualpipev"
    chunked = 2

    def check(self) -> None:
        """Enough to fill."""
        if self.micro_batches < 2 * self.ranks:
            raise refuse_micro_batches(self.name, self.micro_batches, f"{2 * self.ranks} or more", 2 * self.ranks)

    def rank_of(self, micro_batch: int, stage: int) -> int:
        """Down, then up."""
        return min(stage, 2 * self.ranks - 1 - stage)

    def rank(self, rank: int) -> Iterator[Slot]:
        """Side 0 is the way down."""
        return TwoWay(
            self.ranks, rank, self.micro_batches, lambda side, number: (number, (rank, 2 * self.ranks - 1 - rank)[side])
        ).slots()
