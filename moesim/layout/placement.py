"""Placement: which slot holds which expert, and which rank owns which slot, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Ints = npt.NDArray[np.int32]
EMPTY: Final = -1  # a cell of the table that is no slot: it holds nothing and takes no memory


@dataclass(frozen=True)
class Placement:
    """slot_expert int32[layers, slots], slot_rank int32[layers, slots] ascending in each layer; replicas allowed.

    Ranks may own different numbers of slots, and layers too: cells that a layer does not have are EMPTY in
    slot_expert. Raises BadInput where an expert has no slot or an index is out of range.
    """

    slot_expert: Ints
    slot_rank: Ints
    num_experts: int
    num_ranks: int

    def __post_init__(self) -> None:
        if self.slot_expert.shape != self.slot_rank.shape or self.slot_expert.ndim != 2:
            raise BadInput(f"slots {self.slot_expert.shape} and ranks {self.slot_rank.shape} are not one table")
        if np.any(np.diff(self.slot_rank, axis=1) < 0):
            raise BadInput("the slots of a layer are not sorted by rank")
        self._check_range("rank", self.slot_rank, self.num_ranks, 0)
        self._check_range("expert", self.slot_expert, self.num_experts, EMPTY)
        missing = np.argwhere(self.replicas == 0)
        if len(missing):
            layer, expert = missing[0]
            raise BadInput(f"layer {layer}: expert {expert} has no slot", way_out="place every expert at least once")

    @staticmethod
    def _check_range(name: str, values: Ints, size: int, least: int) -> None:
        wrong = np.argwhere((values < least) | (values >= size))
        if len(wrong):
            layer, slot = wrong[0]
            what = f"layer {layer}, slot {slot}: {name} {values[layer, slot]} is not below {size}"
            raise BadInput(what, way_out=f"numbers from 0 to {size - 1}, or a placement of another model or cluster")

    @property
    def num_layers(self) -> int:
        """Layers that have experts."""
        return len(self.slot_expert)

    @property
    def num_slots(self) -> int:
        """Slots of the layer that has most; cells of the table."""
        return int(self.slot_expert.shape[1])

    def of_layers(self, layers: npt.NDArray[np.int64]) -> Placement:
        """Some layers, without columns that none of them fills."""
        kept = self.filled[layers].any(axis=0)
        expert, rank = self.slot_expert[layers][:, kept], self.slot_rank[layers][:, kept]
        return Placement(expert, rank, self.num_experts, self.num_ranks)

    @cached_property
    def filled(self) -> npt.NDArray[np.bool_]:
        """bool[layers, slots]: whether the cell is a slot."""
        return self.slot_expert >= 0

    @cached_property
    def owned(self) -> npt.NDArray[np.int64]:
        """int64[layers, ranks]: slots of each rank."""
        cells = np.arange(self.num_layers)[:, None] * self.num_ranks + self.slot_rank
        size = self.num_layers * self.num_ranks
        return np.bincount(cells[self.filled], minlength=size).reshape(self.num_layers, self.num_ranks)

    @cached_property
    def replicas(self) -> npt.NDArray[np.int64]:
        """int64[layers, experts]: slots that hold each expert."""
        cells = np.arange(self.num_layers)[:, None] * self.num_experts + self.slot_expert
        size = self.num_layers * self.num_experts
        return np.bincount(cells[self.filled], minlength=size).reshape(self.num_layers, self.num_experts)

    @cached_property
    def expert_slots(self) -> Ints:
        """int32[layers, experts, most replicas]: the slots of each expert in ascending order, -1 where it has fewer."""
        expert = np.where(self.filled, self.slot_expert, self.num_experts)  # empty cells last
        order = np.argsort(expert, axis=1, kind="stable")
        first = np.cumsum(self.replicas, axis=1) - self.replicas
        sorted_expert = np.take_along_axis(expert, order, axis=1)
        layer, place = np.nonzero(sorted_expert < self.num_experts)
        which = sorted_expert[layer, place]
        table = np.full((self.num_layers, self.num_experts, int(self.replicas.max())), -1, dtype=np.int32)
        table[layer, which, place - first[layer, which]] = order[layer, place]
        return table

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        """bool[layers, experts, ranks]: the rank has a slot with the expert."""
        table = np.zeros((self.num_layers, self.num_experts, self.num_ranks), dtype=np.bool_)
        layer, slot = np.nonzero(self.filled)
        table[layer, self.slot_expert[layer, slot], self.slot_rank[layer, slot]] = True
        return table

    @cached_property
    def rank_slots(self) -> Ints:
        """int32[layers, ranks, most slots]: the slots of each rank, -1 where it owns fewer."""
        layer, slot = np.nonzero(self.filled)
        rank, before = self.slot_rank[layer, slot], np.cumsum(self.owned, axis=1) - self.owned
        number = np.cumsum(self.filled, axis=1)[layer, slot] - 1 - before[layer, rank]
        table = np.full((self.num_layers, self.num_ranks, int(self.owned.max())), -1, dtype=np.int32)
        table[layer, rank, number] = slot
        return table

    def by_rank(self, layer: int, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[slots] -> int64[ranks, most slots], 0 where a rank owns fewer slots."""
        table = self.rank_slots[layer]
        return np.where(table >= 0, values[table], 0)

    @classmethod
    def none(cls, ranks: int) -> Placement:
        """Of a model without experts: no layer and no slot."""
        return cls(np.empty((0, 0), dtype=np.int32), np.empty((0, 0), dtype=np.int32), 0, ranks)

    @classmethod
    def contiguous(cls, layers: int, experts: int, ranks: int) -> Placement:
        """Expert e on rank e // (experts / ranks), as engines load checkpoints by default."""
        if experts % ranks:
            raise BadInput(f"{experts} experts do not divide over {ranks} ranks")
        expert = np.arange(experts, dtype=np.int32)
        return cls(np.tile(expert, (layers, 1)), np.tile(expert // (experts // ranks), (layers, 1)), experts, ranks)
