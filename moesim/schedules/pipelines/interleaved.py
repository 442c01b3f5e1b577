"""Interleaved 1F1B: several stages on a rank, as far apart as there are ranks (Narayanan et al. 2021, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.errors import BadInput
from moesim.schedules.pipelines.act import Pass, Slot
from moesim.schedules.pipelines.pipeline import Pipeline, one, refuse_micro_batches


class Interleaved(Pipeline):
    """Micro-batches go through the chunks of a rank in bunches of as many as there are ranks."""

    name = "interleaved"
    chunked = None

    def check(self) -> None:
        """Bunches are whole, and there is something to interleave."""
        if self.chunks < 2:
            raise BadInput(
                "interleaved needs two stages or more on a rank",
                way_out="2 chunks (parallel.virtual_pipeline_size: 2), or pipeline.schedule: 1f1b",
            )  # fmt: skip
        if self.micro_batches % self.ranks:
            nearest = max(round(self.micro_batches / self.ranks), 1) * self.ranks
            need = f"a multiple of its {self.ranks} ranks"
            raise refuse_micro_batches(self.name, self.micro_batches, need, nearest)

    def rank(self, rank: int) -> Iterator[Slot]:
        """As 1F1B, over (micro-batch, chunk) pairs."""
        every = self.micro_batches * self.chunks
        ahead = min(2 * (self.ranks - 1 - rank) + (self.chunks - 1) * self.ranks, every)
        yield from (self._slot(Pass.F, number, rank) for number in range(ahead))
        for number in range(every):
            if number + ahead < every:
                yield self._slot(Pass.F, number + ahead, rank)
            yield self._slot(Pass.B, number, rank)

    def _slot(self, what: Pass, number: int, rank: int) -> Slot:
        """The number-th pass of a kind on a rank; backward ones begin at the last chunk."""
        bunch, inside = divmod(number, self.ranks * self.chunks)
        chunk, member = divmod(inside, self.ranks)
        chunk = chunk if what == Pass.F else self.chunks - 1 - chunk
        return one(what, bunch * self.ranks + member, chunk * self.ranks + rank)
