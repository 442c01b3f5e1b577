"""Blueprint: the columns of a Cluster's links and its paths, as templates and graphs draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
MAX_GPUS = 4096  # the table of paths takes 16 bytes per pair and more: 270 MB here


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
class Blueprint:
    """node_of, rail_of int32[D]; paths: one int32[D, D, hops] table per queue pair, -1 padded."""

    node_of: Ints
    rail_of: Ints
    links: tuple[Link, ...]
    paths: tuple[Ints, ...]


def packed(hops: Sequence[Ints]) -> Ints:
    """Tables int32[D, D] of links in order, -1 where a hop is not taken -> int32[D, D, hops], -1 only at the end."""
    taken = np.zeros(hops[0].shape, dtype=np.int8)
    for hop in hops:
        taken += hop >= 0
    path = np.full([*taken.shape, max(int(taken.max()), 1)], -1, dtype=np.int32)
    place = np.zeros_like(taken)
    for hop in hops:
        used = hop >= 0
        for column in range(path.shape[2]):
            np.copyto(path[..., column], hop, where=used & (place == column))
        place += used
    return path
