"""Timeline: when everything happened. Whatever is reported is computed from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.errors import Deadlock
from moesim.units import PICOSECONDS_PER_SECOND, from_ps

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NEVER = -1  # a time that did not come: the lane had not started, or not ended, when everything stood still


@dataclass(frozen=True, eq=False)
class Transfers:
    """One row per coflow and link that it used: task int32[k]; link int32[k]; from its first release to its last byte,
    start, end int64[k] ps; bytes int64[k].
    """

    task: npt.NDArray[np.int32]
    link: npt.NDArray[np.int32]
    start: Int64s
    end: Int64s
    bytes: Int64s

    @classmethod
    def none(cls) -> Transfers:
        """No rows."""
        ints, longs = np.zeros(0, np.int32), np.zeros(0, np.int64)
        return cls(ints, ints, longs, longs, longs)


@dataclass(frozen=True, eq=False)
class Carried:
    """What the flows of a coflow carried where faults changed it: flow int64[n], a row for each path that it took; path
    int32[n, hops]; bytes int64[n]; from the first to the last of them, start, end int64[n] ps.
    """

    flow: Int64s
    path: npt.NDArray[np.int32]
    bytes: Int64s
    start: Int64s
    end: Int64s

    @property
    def spans(self) -> tuple[Int64s, Int64s, Int64s, npt.NDArray[np.int32]]:
        """start, end, bytes, path."""
        return self.start, self.end, self.bytes, self.path


@dataclass(frozen=True, eq=False)
class Timeline:
    """Rows of n lanes, in the order of the graph's lanes. Times are int64 ps on the clock of the World (0 = its start).

    task, rank int32[n]; start int64[n]: a compute lane begins, a coflow lane releases; end int64[n]: a compute lane
    ends, a coflow lane's own sends and receives are done; arrival int64[n]: all bytes for the lane have landed and all
    lanes have released (= end on compute lanes); task_end int64[T]: the last lane, the last port; status: T texts,
    "done", or for a coflow that met a fault "rerouted", "stalled" (it stood still for some time) or "aborted"; origin:
    when it was submitted. NEVER (-1) stands for times that did not come, because of the faults in `stopped_by`. player
    "evaluate" or "simulate", network its level. link_saturated float64[L]: seconds in which a link was full, between
    submission and the last end and whoever's flows filled it; None where the network's level does not know. links_end:
    no link can have carried all its bytes before, which port loads know of each coflow, but not of those that overlap.
    carried: of tasks whose flows took detours or were aborted. What never ends takes for ever: step_seconds is inf.
    """

    player: str
    network: str
    origin: int
    task: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]
    start: Int64s
    end: Int64s
    arrival: Int64s
    task_end: Int64s
    status: tuple[str, ...]
    transfers: Transfers
    num_links: int
    ignored_overlap_s: float = 0.0
    links_end: int = 0
    stopped_by: tuple[str, ...] = ()
    link_saturated: Floats | None = None
    carried: Mapping[int, Carried] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every task ended; False where a fault left flows standing for ever."""
        return bool(np.all(self.task_end != NEVER))

    @cached_property
    def step_ps(self) -> int:
        """Ticks from submission to the last end, or to `links_end`. Raises Deadlock where the end never came."""
        if not self.complete:
            raise Deadlock(f"the step never ends: {'; '.join(self.stopped_by)}", way_out="until: when it is repaired")
        return max(int(self.task_end.max(initial=self.origin)), self.links_end) - self.origin

    @property
    def step_seconds(self) -> float:
        """Seconds from submission to the last end; inf where it never came."""
        return self.step_ps / PICOSECONDS_PER_SECOND if self.complete else math.inf

    @cached_property
    def link_bytes(self) -> Int64s:
        """int64[L]: bytes that each link carried."""
        carried = np.zeros(self.num_links, dtype=np.int64)
        np.add.at(carried, self.transfers.link, self.transfers.bytes)
        return carried

    @cached_property
    def link_busy(self) -> Floats:
        """float64[L] s: time in which a link had any coflow under way."""
        return from_ps(_covered(self.transfers, self.num_links))


def overlap_seconds(transfers: Transfers, num_links: int) -> float:
    """The worst link's seconds in which more than one coflow was under way on it, each beyond the first counted."""
    total = np.zeros(num_links, dtype=np.int64)
    np.add.at(total, transfers.link, transfers.end - transfers.start)
    overlap = total - _covered(transfers, num_links)
    return int(overlap.max(initial=0)) / PICOSECONDS_PER_SECOND


def links_end(transfers: Transfers, capacity: Floats) -> int:
    """The latest tick t + (bytes whose coflows began at or after t) / capacity, over t and links of capacity float64[L]
    B/s. Whatever the sharing, no link is done before.
    """
    order = np.lexsort((-transfers.start, transfers.link))
    link, start, size = transfers.link[order], transfers.start[order], transfers.bytes[order]
    before = np.concatenate(([0], np.cumsum(size)))
    first = np.searchsorted(link, link)
    since = before[1:] - before[first]
    with np.errstate(divide="ignore"):
        ticks = np.rint(since * (PICOSECONDS_PER_SECOND / capacity[link]))
    return int((start + ticks.astype(np.int64)).max(initial=0))


def _covered(transfers: Transfers, num_links: int) -> Int64s:
    """int64[L] ticks: the length of the union of each link's intervals."""
    order = np.lexsort((transfers.start, transfers.link))
    covered = np.zeros(num_links, dtype=np.int64)
    _add_unions(transfers.link[order], transfers.start[order], transfers.end[order], covered)
    return covered


@njit
def _add_unions(link: Any, start: Any, end: Any, covered: Any) -> None:
    """Rows sorted by link, then start."""
    reach = np.int64(0)
    for row in range(link.shape[0]):
        if row == 0 or link[row] != link[row - 1]:
            reach = start[row]
        covered[link[row]] += max(end[row] - max(start[row], reach), 0)
        reach = max(reach, end[row])
