"""The closed form of port_times.py in whole-array operations: what is called where kernels are not compiled.

All flows pass each of their links at once: sorted by set and link, last start first, the bytes that are still to come
are a running sum. Equal to the compiled pass to the tick, and a second way of computing it in its tests.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.units import LAST_TICK

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Columns = tuple[Int32s, Int64s, Int64s, Int64s]
LONGEST = float(LAST_TICK)


class Passages(NamedTuple):
    """Flows on links, int64[n] each: flow, link, its start in ps, its bytes; in order of last start, then of hops."""

    flow: Int64s
    link: Int64s
    start: Int64s
    bytes: Int64s

    def of(self, chosen: npt.NDArray[np.bool_]) -> Passages:
        """chosen bool[n] -> those alone."""
        return Passages(*(column[chosen] for column in self))


def coflow_times(
    release: Int64s,
    alpha: int,
    owner_ptr: Int64s,
    source: Int32s,
    destination: Int32s,
    size: Int64s,
    path: Int32s,
    latency: Int64s,
    steps: Int64s,
    slowness: Floats,
    load: Int64s,
    scratch_end: Int64s,
    scratch_first: Int64s,
    done: Int64s,
    arrival: Int64s,
) -> tuple[int, Columns]:
    """See port_times.coflow_times; the three scratch arrays are not needed here."""
    lanes, own = len(release), np.minimum(release + alpha, LAST_TICK)
    start = np.repeat(own, np.diff(owner_ptr))
    passages = _passages(start, size, path)
    sends = _bounds(passages, source, lanes, slowness)
    receives = _landings(passages, destination, lanes, slowness, latency, steps)
    done[:] = np.maximum(np.maximum(own, sends), receives)
    last = int(own.max())
    arrival[:] = np.maximum(last, receives)
    spans = _spans(passages, slowness)
    return max(last, int(spans[2].max(initial=0)), int(arrival.max())), spans


def _passages(start: Int64s, size: Int64s, path: Int32s) -> Passages:
    order = np.argsort(-start, kind="stable")
    flow, hop = np.nonzero((path[order] >= 0) & (size[order] > 0)[:, None])
    flow = order[flow]
    return Passages(flow, path[flow, hop].astype(np.int64), start[flow], size[flow])


def _after(start: Int64s, ticks: Floats) -> Int64s:
    """start, and float `ticks` later, as in port_times.after."""
    return np.minimum(start + np.minimum(np.rint(ticks), LONGEST).astype(np.int64), LAST_TICK)


def _still_to_come(group: Int64s, size: Int64s) -> Int64s:
    """group int64[n], sorted; size int64[n] -> the running sum of size within each group."""
    total = np.cumsum(size)
    first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    before = np.repeat(total[first] - size[first], np.diff(np.r_[first, len(group)]))
    return np.asarray(total - before)


def _ends(passages: Passages, key: Int64s, slowness: Floats) -> tuple[Int64s, Int64s]:
    """key int64[n] of each passage -> (their order by key and link, when each link has carried what was left then)."""
    group = key * len(slowness) + passages.link
    order = np.argsort(group, kind="stable")
    ticks = _still_to_come(group[order], passages.bytes[order]) * slowness[passages.link[order]]
    return order, _after(passages.start[order], ticks)


def _bounds(passages: Passages, lane: Int32s, lanes: int, slowness: Floats) -> Int64s:
    """lane int32[F]: the set of each flow -> int64[lanes] ps, the bound of each set, 0 where it is empty."""
    bound = np.zeros(lanes, dtype=np.int64)
    if len(passages.flow):
        key = lane[passages.flow].astype(np.int64)
        order, ends = _ends(passages, key, slowness)
        np.maximum.at(bound, key[order], ends)
    return bound


def _landings(passages: Passages, lane: Int32s, lanes: int, slowness: Floats, latency: Int64s, steps: Int64s) -> Int64s:
    """int64[lanes] ps: when each lane's inbound flows have landed; see port_times.landed."""
    if not len(steps):
        return _bounds(passages, lane, lanes, slowness)
    bound = np.zeros(lanes, dtype=np.int64)
    for step in steps.tolist():
        late = passages.of(latency[passages.flow] >= step)
        sent = _bounds(late, lane, lanes, slowness)
        some = np.bincount(lane[late.flow], minlength=lanes) > 0
        bound = np.maximum(bound, np.where(some, _after(sent, np.full(lanes, float(step))), 0))
    alone = _after(passages.start, passages.bytes * slowness[passages.link] + latency[passages.flow])
    np.maximum.at(bound, lane[passages.flow], alone)
    return bound


def _spans(passages: Passages, slowness: Floats) -> Columns:
    """(links int32[k] in order of first use, first starts, ends, bytes)."""
    if not len(passages.flow):
        nothing = np.zeros(0, dtype=np.int64)
        return nothing.astype(np.int32), nothing, nothing, nothing
    order, ends = _ends(passages, np.zeros(len(passages.flow), dtype=np.int64), slowness)
    link = passages.link[order]
    first = np.flatnonzero(np.r_[True, link[1:] != link[:-1]])
    used = np.argsort(order[first])
    columns = (
        np.minimum.reduceat(passages.start[order], first),
        np.maximum.reduceat(ends, first),
        np.add.reduceat(passages.bytes[order], first),
    )
    start, end, total = (column[used] for column in columns)
    return link[first][used].astype(np.int32), start, end, total
