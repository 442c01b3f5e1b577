"""ZB-H1: no more activations than 1F1B, a third of its bubble (Qi et al. 2023, section 2)."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.pipelines.act import Slot
from moesim.schedules.pipelines.pipeline import Pipeline, refuse_micro_batches
from moesim.schedules.pipelines.zero_bubble import put_off


class ZbH1(Pipeline):
    """W of rank r is put off by r micro-batches."""

    name = "zb-h1"

    def check(self) -> None:
        """As many micro-batches as ranks."""
        if self.micro_batches < self.ranks:
            raise refuse_micro_batches(self.name, self.micro_batches, f"{self.ranks} or more", self.ranks)

    def rank(self, rank: int) -> Iterator[Slot]:
        """1F1B with its backwards split."""
        return put_off(rank, self.micro_batches, self.ranks - 1 - rank, rank)
