"""Where this process measures: its device, and the ranks that torchrun has put beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moesim.calibration.measure.peers import launched, peers
from moesim.calibration.measure.target import find_target
from moesim.calibration.operators.operator import Place


@contextmanager
def this_place(device_class: str) -> Iterator[Place]:
    """The device of that class and the process group. Raises BadInput where there is no such device or backend."""
    rank, world = launched()
    target = find_target(device_class)
    with peers(target.backend, target.device, rank=rank, world=world) as together:
        yield Place(target, together)


def default_plan() -> str:
    """The shipped plan for what this machine has."""
    import torch

    return "gpu-20m" if torch.cuda.is_available() else "cpu-smoke"
