"""Which rank does what: the grid of ranks, and the groups that talk to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Ranks = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Layout:
    """A grid of `world` ranks; rank r runs on device r of the cluster.

    Tensor-parallel ranks are consecutive, so that they stay inside a node where they fit. The expert part has a grid of
    its own (Megatron's order "etp-ep-edp"): consecutive ranks share the width of their experts, then come the ranks
    with other experts, then those that hold the same. Whole tensor groups exchange tokens with each other (an island).
    Raises BadInput with the degrees that fit.
    """

    world: int
    tensor_parallel: int = 1
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1

    def __post_init__(self) -> None:
        for name, degree in (
            ("tensor_parallel_size", self.tensor_parallel),
            ("expert_parallel_size", self.expert_parallel),
            ("expert_tensor_parallel_size", self.expert_tensor_parallel),
        ):
            if degree < 1 or self.world % degree:
                fits = ", ".join(str(d) for d in _divisors(self.world))
                raise BadInput(
                    f"{name} {degree} does not divide {self.world} ranks",
                    where=f"parallel.{name}",
                    way_out=f"one of {fits}",
                )
        if not self._fits(self.expert_tensor_parallel):
            self._refuse()

    def _fits(self, expert_tensor: int) -> bool:
        """Islands of whole tensor groups fill the world."""
        island = self.expert_parallel * expert_tensor
        return self.world % island == 0 and island % self.tensor_parallel == 0

    def _refuse(self) -> None:
        """Raises BadInput."""
        can = [degree for degree in _divisors(self.world) if self._fits(degree)]
        wide = [degree for degree in _divisors(self.world) if degree % self.tensor_parallel == 0]
        other = f"expert_parallel_size: one of {', '.join(map(str, wide))} with expert_tensor_parallel_size: 1"
        raise BadInput(
            f"expert_parallel_size {self.expert_parallel} x expert_tensor_parallel_size {self.expert_tensor_parallel} "
            f"has to divide {self.world} GPUs and to be a multiple of tensor_parallel_size {self.tensor_parallel}",
            where="parallel.expert_tensor_parallel_size",
            way_out=f"expert_tensor_parallel_size: {', '.join(map(str, can))}" if can else other,
        )

    @property
    def data_parallel(self) -> int:
        """Replicas of the dense part."""
        return self.world // self.tensor_parallel

    @property
    def expert_data_parallel(self) -> int:
        """Replicas of the expert part."""
        return self.world // self.island

    @property
    def island(self) -> int:
        """Ranks that hold all experts together, once."""
        return self.expert_parallel * self.expert_tensor_parallel

    def tensor_groups(self) -> Ranks:
        """int32[data_parallel, tensor_parallel]: the ranks that share one replica of the dense part."""
        return self._grid(self.tensor_parallel)

    def data_groups(self) -> Ranks:
        """int32[tensor_parallel, data_parallel]: the ranks that hold the same dense weights."""
        return self._grid(self.tensor_parallel).T

    def islands(self) -> Ranks:
        """int32[expert_data_parallel, island]: the ranks that hold all experts together and exchange tokens."""
        return self._grid(self.island)

    def expert_groups(self) -> Ranks:
        """int32[groups, expert_parallel]: the ranks that hold different experts, or the same part of them."""
        islands = self.islands().reshape(-1, self.expert_parallel, self.expert_tensor_parallel)
        return islands.transpose(0, 2, 1).reshape(-1, self.expert_parallel)

    def expert_tensor_groups(self) -> Ranks:
        """int32[groups, expert_tensor_parallel]: the ranks that share the width of their experts."""
        return self._grid(self.expert_tensor_parallel)

    def expert_data_groups(self) -> Ranks:
        """int32[island, expert_data_parallel]: the ranks that hold the same experts."""
        return self._grid(self.island).T

    def _grid(self, width: int) -> Ranks:
        return np.arange(self.world, dtype=np.int32).reshape(-1, width)


def default_expert_tensor_parallel(tensor_parallel: int, expert_parallel: int) -> int:
    """Experts are shared by as many ranks as their tensor groups leave over: TP 8 without EP gives 8, with EP 2 gives
    4, with EP 8 or more 1. So SGLang (tp_size / ep_size) and TensorRT-LLM (moe_tp x moe_ep = tp).
    """
    return tensor_parallel // math.gcd(tensor_parallel, expert_parallel)


def _divisors(number: int) -> list[int]:
    return [degree for degree in range(1, number + 1) if number % degree == 0]
