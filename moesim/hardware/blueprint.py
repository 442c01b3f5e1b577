"""Blueprint: the columns of a Cluster's links and its paths, as templates and graphs draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
MAX_GPUS = 4096  # a table of paths takes 16 bytes per pair and more: 270 MB here
MOST_GPUS = 65_536  # of templates, whose paths beyond MAX_GPUS are worked out when asked; their links take 1 KB a GPU


class Link(NamedTuple):
    """One directed link: B/s and seconds, nominal."""

    name: str
    kind: str
    start: str
    end: str
    capacity: float
    latency: float
    source: str


@dataclass(frozen=True)
class Ways:
    """What a table int32[D, D, hops] of paths would hold, worked out for the pairs that are asked: `ways[a, b]`."""

    gpus: int
    hops: int
    of: Callable[[Ints, Ints], Ints]

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of the table."""
        return self.gpus, self.gpus, self.hops

    def __getitem__(self, pair: tuple[Any, Any]) -> Ints:
        """GPUs a and b, as numpy would index a table by two arrays or numbers -> int32[..., hops]."""
        a, b = np.broadcast_arrays(*(np.asarray(side, dtype=np.int32) for side in pair))
        return self.of(a, b)


Paths = Ints | Ways


def laid_out(gpus: int, hops: Callable[[Ints, Ints], list[Ints]]) -> Paths:
    """Hops of pairs of GPUs -> a table of all pairs, or beyond MAX_GPUS the Ways."""
    gpu = np.arange(gpus, dtype=np.int32)
    if gpus <= MAX_GPUS:
        return packed([np.broadcast_to(hop, (gpus, gpus)) for hop in hops(gpu[:, None], gpu[None, :])])
    most = len(hops(gpu[:1], gpu[:1]))
    return Ways(gpus, most, lambda a, b: packed(hops(a, b), most))


def changed(paths: Paths, change: Callable[[Ints, Ints, Ints], Ints], most: int) -> Paths:
    """paths with `change(a, b, rows)` in place of rows int32[..., hops]; of at most `most` hops."""
    if isinstance(paths, Ways):
        return Ways(paths.gpus, most, lambda a, b: change(a, b, paths[a, b]))
    gpu = np.arange(len(paths), dtype=np.int32)
    return change(gpu[:, None], gpu[None, :], paths)


@dataclass(frozen=True)
class Blueprint:
    """node_of, rail_of int32[D]; paths: one int32[D, D, hops] table per queue pair, -1 padded, or its Ways."""

    node_of: Ints
    rail_of: Ints
    links: tuple[Link, ...]
    paths: tuple[Paths, ...]


def packed(hops: Sequence[Ints], most: int = 0) -> Ints:
    """Arrays of links in order, -1 where a hop is not taken -> int32[..., hops], -1 only at the end; as many hops as
    are taken, or `most`.
    """
    taken = np.zeros(hops[0].shape, dtype=np.int8)
    for hop in hops:
        taken += hop >= 0
    path = np.full([*taken.shape, most or max(int(taken.max(initial=0)), 1)], -1, dtype=np.int32)
    place = np.zeros_like(taken)
    for hop in hops:
        used = hop >= 0
        for column in range(path.shape[-1]):
            np.copyto(path[..., column], hop, where=used & (place == column), casting="same_kind")
        place += used
    return path
