"""What every pipeline says of itself: which rank does what in which order. Integers only, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

from moesim.errors import BadInput
from moesim.schedules.pipelines.act import Act, Orders, Pass, Slot

MOST: Final = 1 << 17  # (micro-batch, stage) pairs: DeepSeek-V3 has 16 x 120; orders are Python tuples


class Pipeline(ABC):
    """`ranks` pipeline ranks, `micro_batches` of a step, `chunks` stages on each rank. A pipeline is one file here: a
    class that names itself is registered. chunked: how many chunks a rank may have, None for any number.

    `check` raises BadInput on numbers that the order does not exist for, with the nearest that it does.
    """

    name: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Pipeline]]] = {}
    chunked: ClassVar[int | None] = 1

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            cls.known[cls.name] = cls

    def __init__(self, ranks: int, micro_batches: int, chunks: int | None = None) -> None:
        self.ranks, self.micro_batches = ranks, micro_batches
        self.chunks = chunks or self.chunked or 1
        if self.chunked is not None and self.chunks != self.chunked:
            what = f"{self.name} has {self.chunked} stage(s) on a rank, not {self.chunks}"
            raise BadInput(what, way_out=f"{self.chunked}, or leave out")
        if (passes := self.stages * micro_batches) > MOST:
            what = f"{passes} passes forward are more than {MOST}"
            raise BadInput(what, way_out="fewer micro-batches, ranks or chunks")
        self.check()

    def check(self) -> None:  # noqa: B027 (most pipelines have nothing to refuse)
        """Raises BadInput; any number of ranks and micro-batches will do unless a pipeline says otherwise."""

    @property
    def stages(self) -> int:
        """Along the way of a micro-batch."""
        return self.ranks * self.chunks

    def rank_of(self, micro_batch: int, stage: int) -> int:
        """The rank that does stage `stage` of that micro-batch."""
        return stage % self.ranks

    @property
    def orders(self) -> Orders:
        """All slots of each rank."""
        return tuple(tuple(self.rank(rank)) for rank in range(self.ranks))

    @abstractmethod
    def rank(self, rank: int) -> Iterator[Slot]:
        """The slots of one rank, in order."""

    def alive(self, rank: int) -> int:
        """The most (micro-batch, stage) pairs of a rank whose forward is done and whose gradients are not."""
        held, most = 0, 0
        for slot in self.rank(rank):
            held += sum(act.what == Pass.F for act in slot)
            most = max(most, held)
            held -= sum(act.what in (Pass.B, Pass.W) for act in slot)
        return most


def one(what: Pass, micro_batch: int, stage: int) -> Slot:
    """A slot of one act."""
    return (Act(what, micro_batch, stage),)


def refuse_micro_batches(pipeline: str, found: int, need: str, nearest: int) -> BadInput:
    """A number of micro-batches that the order does not exist for."""
    return BadInput(
        f"{pipeline} needs {need}, there are {found} micro-batches", way_out=f"{nearest} micro-batches"
    )  # fmt: skip
