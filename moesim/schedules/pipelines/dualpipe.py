"""DualPipe: micro-batches enter at both ends, every rank holds two stages (DeepSeek-V3 report 2024, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.errors import BadInput
from moesim.schedules.pipelines.act import Slot
from moesim.schedules.pipelines.pipeline import Pipeline, refuse_micro_batches
from moesim.schedules.pipelines.two_way import TwoWay


class DualPipe(Pipeline):
    """The first half of the micro-batches goes from rank 0 on, the second half from the last rank back. Each rank holds
    the weights of both stages that it does: the model is there twice.
    """

    name = "dualpipe"
    chunked = 2

    def check(self) -> None:
        """Even numbers of both, and enough to fill."""
        if self.ranks % 2:
            raise BadInput(
                f"dualpipe needs an even number of ranks, there are {self.ranks}",
                way_out=" or ".join(str(near) for near in (self.ranks - 1, self.ranks + 1) if near),
            )  # fmt: skip
        if self.micro_batches % 2 or self.micro_batches < 2 * self.ranks:
            nearest = max(self.micro_batches + self.micro_batches % 2, 2 * self.ranks)
            need = f"an even number, {2 * self.ranks} or more"
            raise refuse_micro_batches(self.name, self.micro_batches, need, nearest)

    @property
    def stages(self) -> int:
        """The two on a rank are of different directions."""
        return self.ranks

    def rank_of(self, micro_batch: int, stage: int) -> int:
        """The second half comes from the other end."""
        return stage if micro_batch < self.micro_batches // 2 else self.ranks - 1 - stage

    def rank(self, rank: int) -> Iterator[Slot]:
        """Side 0 is the end that the rank is nearer to."""
        half, far = self.micro_batches // 2, rank >= self.ranks // 2

        def place(side: int, number: int) -> tuple[int, int]:
            back = bool(side) != far
            return (half + number, self.ranks - 1 - rank) if back else (number, rank)

        return TwoWay(self.ranks // 2, min(rank, self.ranks - 1 - rank), half, place).slots()
