"""GPipe: all micro-batches forward, then all backward (Huang et al. 2019, figure 2)."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.pipelines.act import Pass, Slot
from moesim.schedules.pipelines.pipeline import Pipeline, one


class GPipe(Pipeline):
    """Holds the activations of every micro-batch."""

    name = "gpipe"

    def rank(self, rank: int) -> Iterator[Slot]:
        """F of all, B of all."""
        for what in (Pass.F, Pass.B):
            yield from (one(what, number, rank) for number in range(self.micro_batches))
