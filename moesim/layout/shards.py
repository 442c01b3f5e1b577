"""Which part of what data-parallel ranks hold alike each of them keeps. Memory and time both ask here.

| stage | a rank keeps whole | in parts, one on each rank of a shard group | known as |
|---|---|---|---|
| 0 | weights, gradients, optimizer states | | DDP |
| 1 | weights, gradients | optimizer states | ZeRO-1, Megatron's distributed optimizer |
| 2 | weights | gradients, optimizer states | ZeRO-2 |
| 3 | | weights, gradients, optimizer states | ZeRO-3, FSDP |

Where a shard group has fewer ranks than there are replicas, groups are replicas of each other (HSDP). Rajbhandari et
al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020), section 5; Zhao et al., "PyTorch
FSDP" (2023), section 3.2.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from moesim.errors import BadInput
from moesim.layout.layout import Layout

OPTIMIZER, GRADIENTS, WEIGHTS = 1, 2, 3  # the stage from which on each is kept in parts
SIZE: Final = "parallel.data_parallel_shard_size"


class Split(NamedTuple):
    """`shard` ranks that lie `stride` apart keep a part each; `replicas` such groups hold the same."""

    shard: int
    replicas: int
    stride: int

    @property
    def whole(self) -> int:
        """Ranks that hold the same weights."""
        return self.shard * self.replicas


@dataclass(frozen=True)
class Shards:
    """Of the ranks of a layout: of what all hold (dense), and of experts."""

    stage: int
    dense: Split
    expert: Split

    @classmethod
    def of(cls, layout: Layout, stage: int = OPTIMIZER, size: int | None = None) -> Shards:
        """size: data-parallel ranks of a shard group, all by default. Experts are divided over those of a group that
        hold the same. Raises BadInput.
        """
        ranks, experts = layout.data_parallel, layout.expert_data_parallel
        size = size or ranks
        if ranks % size:
            can = [one for one in range(1, ranks + 1) if ranks % one == 0]
            near = sorted(sorted(can, key=lambda one: abs(one - size))[:2])
            raise BadInput(f"{size} does not divide {ranks} data-parallel ranks", where=SIZE,
                           way_out=" or ".join(map(str, near)))  # fmt: skip
        block = size * layout.tensor_parallel
        if block % layout.island and layout.island % block:
            fits = [one for one in range(1, ranks + 1) if ranks % one == 0 and _fits(layout, one)]
            what = f"shard groups of {block} ranks and expert groups of {layout.island} cut each other"
            raise BadInput(what, where=SIZE, way_out=f"one of {', '.join(map(str, fits))}")
        same = max(block // layout.island, 1)
        return cls(
            stage, Split(size, ranks // size, layout.tensor_parallel), Split(same, experts // same, layout.island)
        )

    def kept(self, dense: float, expert: float, what: int) -> float:
        """Of so many parameters on a rank, those whose OPTIMIZER states, GRADIENTS or WEIGHTS it keeps."""
        if self.stage < what:
            return dense + expert
        return dense / self.dense.shard + expert / self.expert.shard


def _fits(layout: Layout, size: int) -> bool:
    block = size * layout.tensor_parallel
    return block % layout.island == 0 or layout.island % block == 0
