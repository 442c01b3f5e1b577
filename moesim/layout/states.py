"""What training keeps of parameters beside the weights: gradients and optimizer states, as they are sharded."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.layout.memory import MemoryRow
from moesim.layout.optimizer import Optimizer
from moesim.layout.shards import GRADIENTS, OPTIMIZER, Shards

HBM = "HBM"
WIDER = "cluster.nodes, parallel.data_parallel_size"  # more ranks that share what they keep


def state_rows(
    shards: Shards, parameters: tuple[float, float], gradient_bytes: int, optimizer: Optimizer, knob: str,
    factors: tuple[int, int] = (0, 0),
) -> Iterator[MemoryRow]:  # fmt: skip
    """parameters: dense and expert ones of a rank; knob: keys that keep less, beside those of wider sharding; factors:
    bytes of sums over rows and columns of both.
    """
    gradients = gradient_bytes * shards.kept(*parameters, GRADIENTS)
    yield MemoryRow(HBM, "gradients", round(gradients), f"{WIDER}, parallel.expert_parallel_size")
    states = optimizer.bytes_per_parameter * shards.kept(*parameters, OPTIMIZER) + shards.kept(*factors, OPTIMIZER)
    yield MemoryRow(HBM, "optimizer states", int(states), f"{knob}, {WIDER}" if knob else WIDER)
