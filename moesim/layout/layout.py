"""Which rank does what: the grid of ranks, and the groups that talk to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Ranks = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Layout:
    """A grid of `world` ranks; rank r runs on device r of the cluster.

    Tensor-parallel ranks are consecutive, as are the ranks of an expert-parallel group, so that both stay inside a node
    where they fit (Megatron's order "tp-ep-dp"). Ranks that hold the same experts form an expert-data group.
    """

    world: int
    tensor_parallel: int = 1
    expert_parallel: int = 1

    def __post_init__(self) -> None:
        for name, degree in (
            ("tensor_parallel_size", self.tensor_parallel),
            ("expert_parallel_size", self.expert_parallel),
        ):
            if degree < 1 or self.world % degree:
                fits = ", ".join(str(d) for d in range(1, self.world + 1) if self.world % d == 0)
                raise BadInput(f"{name} {degree} does not divide {self.world} ranks", way_out=f"one of {fits}")

    @property
    def data_parallel(self) -> int:
        """Replicas of the dense part."""
        return self.world // self.tensor_parallel

    @property
    def expert_data_parallel(self) -> int:
        """Replicas of the expert part."""
        return self.world // self.expert_parallel

    def tensor_groups(self) -> Ranks:
        """int32[data_parallel, tensor_parallel]: the ranks that share one replica of the dense part."""
        return self._grid(self.tensor_parallel)

    def data_groups(self) -> Ranks:
        """int32[tensor_parallel, data_parallel]: the ranks that hold the same dense weights."""
        return self._grid(self.tensor_parallel).T

    def expert_groups(self) -> Ranks:
        """int32[expert_data_parallel, expert_parallel]: the ranks that exchange tokens with each other."""
        return self._grid(self.expert_parallel)

    def expert_data_groups(self) -> Ranks:
        """int32[expert_parallel, expert_data_parallel]: the ranks that hold the same experts."""
        return self._grid(self.expert_parallel).T

    def _grid(self, width: int) -> Ranks:
        return np.arange(self.world, dtype=np.int32).reshape(-1, width)
