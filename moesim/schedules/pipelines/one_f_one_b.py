"""1F1B: as soon as a rank can go backward it alternates (Narayanan et al. 2021, figure 4)."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.pipelines.act import Pass, Slot
from moesim.schedules.pipelines.pipeline import Pipeline, one


class OneFOneB(Pipeline):
    """Rank r holds at most ranks - r micro-batches."""

    name = "1f1b"

    def rank(self, rank: int) -> Iterator[Slot]:
        """Forwards ahead of the first backward, then one of each, then the backwards that are left."""
        ahead = min(self.ranks - 1 - rank, self.micro_batches)
        yield from (one(Pass.F, number, rank) for number in range(ahead))
        for number in range(self.micro_batches):
            if number + ahead < self.micro_batches:
                yield one(Pass.F, number + ahead, rank)
            yield one(Pass.B, number, rank)
