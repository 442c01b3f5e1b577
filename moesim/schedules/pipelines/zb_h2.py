"""ZB-H2: twice the activations of 1F1B, no bubble where F = D = W (Qi et al. 2023, section 2)."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.pipelines.act import Slot
from moesim.schedules.pipelines.pipeline import Pipeline, refuse_micro_batches
from moesim.schedules.pipelines.zero_bubble import put_off


class ZbH2(Pipeline):
    """2 (ranks - r) - 1 forwards before the first backward of rank r, its W put off by 2 r micro-batches."""

    name = "zb-h2"

    def check(self) -> None:
        """Enough to fill the first rank until its first gradient comes."""
        if self.micro_batches < 2 * self.ranks - 1:
            least = 2 * self.ranks - 1
            raise refuse_micro_batches(self.name, self.micro_batches, f"{least} or more", least)

    def rank(self, rank: int) -> Iterator[Slot]:
        """As ZB-H1 with twice of both; the last forward ahead comes with the first backward."""
        return put_off(rank, self.micro_batches, 2 * (self.ranks - 1 - rank), 2 * rank)
