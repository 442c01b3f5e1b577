"""Peers: the ranks that measure together, over torch.distributed; torchrun's environment says who they are."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from moesim.errors import BadInput

PATIENCE = timedelta(minutes=5)  # of a collective before it gives up on a rank that is gone


@dataclass(frozen=True)
class Peers:
    """This rank among `world`. `control` is a gloo group for what the ranks tell each other between measurements."""

    rank: int = 0
    world: int = 1
    control: Any = None
    nodes: int = 1

    def any(self, flag: bool) -> bool:
        """Whether one rank says so."""
        return self._count(flag) > 0

    def all(self, flag: bool) -> bool:
        """Whether every rank says so."""
        return self._count(flag) == self.world

    def _count(self, flag: bool) -> int:
        if self.world == 1:
            return int(flag)
        said = torch.tensor([int(flag)])
        dist.all_reduce(said, group=self.control)
        return int(said)

    def gather(self, value: Any) -> list[Any]:
        """What every rank has, on every rank, in the order of ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self.control)
        return found

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self.gather(value if self.rank == 0 else None)[0]

    def barrier(self) -> None:
        """Return when all ranks are here."""
        if self.world > 1:
            dist.barrier(group=self.control)


def _nodes(world: int, control: Any) -> int:
    """How many hosts the ranks are on."""
    hosts: list[Any] = [None] * world
    dist.all_gather_object(hosts, platform.node(), group=control)
    return len(set(hosts))


def local_rank() -> int:
    """Which GPU of the node is this process's, as torchrun says."""
    return _from_environment("LOCAL_RANK", 0)


def launched() -> tuple[int, int]:
    """rank and world size that torchrun has set, (0, 1) for a process alone. Raises BadInput for odd values."""
    rank, world = _from_environment("RANK", 0), _from_environment("WORLD_SIZE", 1)
    if not 0 <= rank < world:
        raise BadInput(f"RANK={rank} is not below WORLD_SIZE={world}", way_out="torchrun sets both")
    return rank, world


@contextmanager
def peers(backend: str, device: torch.device, *, rank: int, world: int, store: str = "env://") -> Iterator[Peers]:
    """Join the process group, and leave it at the end. Raises BadInput where the backend is missing."""
    if world == 1:
        yield Peers()
        return
    if not dist.is_available() or not dist.is_backend_available(backend):
        raise BadInput(f"torch {torch.__version__} has no backend {backend}", way_out="a build of torch that has it")
    where = {"device_id": device} if device.type == "cuda" else {}
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=world, timeout=PATIENCE, **where)
    try:
        control = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Peers(rank, world, control, nodes=_nodes(world, control))
    finally:
        dist.destroy_process_group()


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.lstrip("-").isdigit():
        raise BadInput(f"{name}={text!r} is no rank", way_out="torchrun sets it")
    return int(text)
