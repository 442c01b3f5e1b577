"""What training keeps of parameters beside the weights: gradients and optimizer states, as they are sharded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from moesim.layout.memory import MemoryRow
from moesim.layout.optimizer import Optimizer
from moesim.layout.shards import GRADIENTS, OPTIMIZER, Shards
from moesim.layout.spread import Part

HBM = "HBM"
WIDER = "cluster.nodes, parallel.data_parallel_size"  # more ranks that share what they keep


class Held(NamedTuple):
    """Parameters of a rank, dense ones and its experts'; the same by matrices: of layers, of the vocabulary's tables
    (dense as well), of its experts.
    """

    dense: int
    expert: int
    matrices: tuple[Part, ...]
    tables: Part
    experts: Part

    def state_bytes(self, optimizer: Optimizer, shards: Shards) -> float:
        """What a rank keeps for its part of the update."""
        own, tables = optimizer.bytes_per_parameter, optimizer.of_tables.bytes_per_parameter
        states = own * shards.kept(self.dense, self.expert, OPTIMIZER)
        states += (tables - own) * shards.kept(self.tables.parameters, 0, OPTIMIZER)
        factors = optimizer.factors((*self.matrices, self.tables)), optimizer.factors((self.experts,))
        return states + shards.kept(*factors, OPTIMIZER)

    def update_bytes(self, optimizer: Optimizer, shards: Shards, gradient_bytes: int) -> float:
        """What its part of the update reads and writes."""
        own, tables = optimizer.update_bytes(gradient_bytes), optimizer.of_tables.update_bytes(gradient_bytes)
        moved = own * shards.kept(self.dense, self.expert, OPTIMIZER)
        return moved + (tables - own) * shards.kept(self.tables.parameters, 0, OPTIMIZER)


def state_rows(
    shards: Shards, parameters: tuple[float, float], gradient_bytes: int, states: float, knob: str
) -> Iterator[MemoryRow]:
    """parameters: dense and expert ones of a rank; states: bytes of the optimizer's; knob: keys that keep less, beside
    those of wider sharding.
    """
    gradients = gradient_bytes * shards.kept(*parameters, GRADIENTS)
    yield MemoryRow(HBM, "gradients", round(gradients), f"{WIDER}, parallel.expert_parallel_size")
    yield MemoryRow(HBM, "optimizer states", int(states), f"{knob}, {WIDER}")
