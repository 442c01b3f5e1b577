"""`moesim topo validate`: laws that every sealed Cluster obeys, and what its links add up to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim import yamlfile
from moesim.errors import BrokenInvariant
from moesim.hardware.census import census, nearest_shipped
from moesim.hardware.cluster import NO_LINK, Cluster
from moesim.hardware.load import find_topology, load_cluster
from moesim.units import show_bandwidth

Ints = npt.NDArray[np.int32]
BLOCK: Final = 1 << 18  # pairs at a time: 64 ways of 6 links each take 400 MB


@dataclass(frozen=True)
class Validation:
    """Sentences about a topology that loads: what was checked, and what a reader should look at again."""

    name: str
    checks: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def text(self) -> str:
        """For a terminal."""
        lines = [f"{self.name}: valid", *(f"  ok       {line}" for line in self.checks)]
        return "\n".join([*lines, *(f"  warning  {line}" for line in self.warnings)])


def validate(
    name_or_path: str | Path, *, nodes: int | None = None, oversubscription: float | None = None
) -> Validation:
    """Load a topology and check it. Raises BadInput with file, line and key where it is wrong."""
    cluster = load_cluster(name_or_path, nodes=nodes, oversubscription=oversubscription)
    check_integrity(cluster)
    checks = (
        f"{cluster.num_devices} GPUs in {cluster.num_nodes} nodes, every {_pairs(cluster)} has a route of at most "
        f"{_longest(cluster)} links",
        f"{cluster.num_links} links, capacities from {show_bandwidth(float(cluster.link_capacity.min()))} to "
        f"{show_bandwidth(float(cluster.link_capacity.max()))}, each with a unit and a source",
        *_bottlenecks(cluster),
    )
    mine = census(yamlfile.read_yaml(find_topology(str(name_or_path))))
    nearest = nearest_shipped(mine)
    beside = (mine.beside(nearest),) if nearest else ()
    return Validation(cluster.name, (*checks, mine.sentence(), *beside), (*cluster.warnings, *_unused(cluster)))


def _pairs(cluster: Cluster) -> str:
    return "pair" if isinstance(cluster.path, np.ndarray) else "pair from the first and the last node"


def _longest(cluster: Cluster) -> int:
    return int((cluster.path[cluster.witnesses()] != NO_LINK).sum(axis=1).max(initial=0))


def check_integrity(cluster: Cluster) -> None:
    """Every path is a chain of links from its source to its destination. Raises BrokenInvariant."""
    if not np.all(np.isfinite(cluster.link_capacity) & (cluster.link_capacity > 0)):
        raise BrokenInvariant(f"topology {cluster.name} has a link without capacity")
    a, b = cluster.witnesses()
    itself = np.arange(cluster.num_devices, dtype=np.int32)
    for paths in (cluster.path, *cluster.more_paths):
        rows = paths[a, b]
        if np.any(paths[itself, itself] != NO_LINK) or np.any(rows[:, 0] == NO_LINK):
            raise BrokenInvariant(f"topology {cluster.name} has a pair without a route, or a route to itself")
        _check_chains(cluster, a, b, rows)


def _check_chains(cluster: Cluster, a: Ints, b: Ints, rows: Ints) -> None:
    start, end = _numbered_ends(cluster)
    for hop in range(1, rows.shape[1]):
        before, after = rows[:, hop - 1], rows[:, hop]
        both = after != NO_LINK
        if np.any(before[both] == NO_LINK) or np.any(end[before[both]] != start[after[both]]):
            raise BrokenInvariant(f"topology {cluster.name} has a path whose links do not meet")
    first, last = rows[:, 0], rows[np.arange(len(rows)), (rows != NO_LINK).sum(axis=1) - 1]
    if np.any((start[first] >= 0) & (start[first] != a)) or np.any((end[last] >= 0) & (end[last] != b)):
        raise BrokenInvariant(f"topology {cluster.name} has a path that starts or ends at another GPU")


def _numbered_ends(cluster: Cluster) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """int64[L] each: the GPU at each end of a link, or a negative number that names the switch."""
    names = sorted({end for ends in cluster.link_ends for end in ends if not end.startswith("gpu")})
    number = {name: -1 - place for place, name in enumerate(names)}
    number |= {f"gpu{gpu}": gpu for gpu in range(cluster.num_devices)}
    ends = np.array([[number[a], number[b]] for a, b in cluster.link_ends], dtype=np.int64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _bottlenecks(cluster: Cluster) -> tuple[str, ...]:
    """What the slowest and the fastest message inside nodes and between nodes reach, each alone."""
    a, b = cluster.witnesses()
    some = np.array_split(np.arange(len(a)), 1 + len(a) // BLOCK)
    width = np.concatenate([cluster.message_rate(a[rows], b[rows]) for rows in some])
    same = cluster.node_of[a] == cluster.node_of[b]
    found = []
    for where, pairs in (("inside a node", same), ("between nodes", ~same)):
        rates = width[pairs & np.isfinite(width)]
        if len(rates):
            low, high = show_bandwidth(float(rates.min())), show_bandwidth(float(rates.max()))
            found.append(f"one flow {where} reaches {low if low == high else f'{low} to {high}'}")
    return tuple(found)


def _unused(cluster: Cluster) -> tuple[str, ...]:
    if not isinstance(cluster.path, np.ndarray):
        return ()  # not every pair was looked at
    pairs = cluster.witnesses()
    used = np.unique(np.concatenate([np.unique(table[pairs]) for table in (cluster.path, *cluster.more_paths)]))
    idle = np.setdiff1d(np.arange(cluster.num_links), used)
    if not len(idle):
        return ()
    return (f"{len(idle)} of {cluster.num_links} links lie on no route, {cluster.link_name[idle[0]]} for one",)
