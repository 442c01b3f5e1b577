"""An order that a user wrote: CSV as PyTorch's pipeline runtime reads it, a line a rank, an action a cell.

`2F0` is micro-batch 0 forward through stage 2, B its backward pass, I and W gradients of inputs and of weights apart;
`(2F1;3B0)OVERLAP_F_B` are two passes at once; nothing is done in an empty cell. Source: torch.distributed.pipelining,
schedules.py ("compute_only"); torchtitan names such a file by `pipeline_parallel_schedule_csv`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from moesim import foreign
from moesim.errors import BadInput
from moesim.schedules.pipelines.act import Act, Orders, Pass, Slot
from moesim.schedules.pipelines.check import check_orders
from moesim.schedules.pipelines.pipeline import Pipeline

SUFFIX: Final = ".csv"
ACTION: Final = re.compile(r"(\d{1,6})([FBIW])(\d{1,6})")
OVERLAP: Final = re.compile(r"\(([^()]*)\)OVERLAP_F_B")
PASSES: Final = {"F": Pass.F, "B": Pass.B, "I": Pass.D, "W": Pass.W}


class OrdersFile(Pipeline):
    """Of the file at `path`; ranks, micro-batches and stages are the file's, which those that are given have to be."""

    chunked = None

    def __init__(
        self, path: Path, ranks: int | None = None, micro_batches: int | None = None, chunks: int | None = None
    ) -> None:
        self.path, self._orders = path, read_orders(path)
        acts = [(rank, act) for rank, slots in enumerate(self._orders) for slot in slots for act in slot]
        self._owners = {(act.stage, rank) for rank, act in acts}
        self._micro_batches = 1 + max(act.micro_batch for _, act in acts)
        self._rank_of = dict(sorted(self._owners))
        super().__init__(ranks or len(self._orders), micro_batches or self._micro_batches, chunks)
        if chunks and chunks * self.ranks != self.stages:
            raise BadInput(f"has {self.stages} stages on {self.ranks} ranks, not {chunks} on each", where=path,
                           way_out="leave the number of chunks out")  # fmt: skip

    @property
    def stages(self) -> int:
        """Those that the file names."""
        return 1 + max(self._rank_of)

    def rank_of(self, micro_batch: int, stage: int) -> int:
        """The same for every micro-batch."""
        return self._rank_of[stage]

    def rank(self, rank: int) -> Iterator[Slot]:
        """As written."""
        return iter(self._orders[rank])

    def check(self) -> None:
        """The numbers are the file's, a stage has one rank, every pass is there once."""
        for what, has, asked in (
            ("ranks", len(self._orders), self.ranks), ("micro-batches", self._micro_batches, self.micro_batches)
        ):  # fmt: skip
            if has != asked:
                raise BadInput(f"is an order of {has} {what}, not of {asked}", where=self.path, way_out=f"{has} {what}")
        if len(self._owners) > len(self._rank_of):
            stage, rank = min(owner for owner in self._owners if self._rank_of[owner[0]] != owner[1])
            raise BadInput(f"stage {stage} is on ranks {rank} and {self._rank_of[stage]}", where=self.path,
                           way_out="one rank for each stage")  # fmt: skip
        try:
            check_orders(self._orders, self.micro_batches, self.stages)
        except BadInput as wrong:
            raise BadInput(wrong.what, where=self.path, way_out=wrong.way_out) from None


def read_orders(path: Path) -> Orders:
    """What each rank does. Raises BadInput with the line of a cell that is no action."""
    foreign.regular(path)
    with foreign.reading(path, "order of a pipeline"), path.open(newline="", encoding="utf-8") as file:
        rows = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader]
    found = tuple(
        tuple(_slot(cell.strip(), f"{path}:{line}") for cell in row if cell.strip()) for line, row in rows if row
    )
    if not any(found):
        raise BadInput("has no passes", where=path, way_out="a line for each rank, e.g. 0F0,0F1,0B0,0B1")
    return found


def _slot(cell: str, where: str) -> Slot:
    both = OVERLAP.fullmatch(cell)
    return tuple(_act(one.strip(), where) for one in (both[1].split(";") if both else [cell]))


def _act(action: str, where: str) -> Act:
    parts = ACTION.fullmatch(action)
    if parts is None:
        raise BadInput(f"{action[:60]!r} is no pass", where=where,
                       way_out="STAGE, F, B, I or W, MICRO-BATCH, e.g. 0F3, or (1F4;0B2)OVERLAP_F_B")  # fmt: skip
    stage, what, number = parts.groups()
    return Act(PASSES[what], int(number), int(stage))
