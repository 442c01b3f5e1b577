"""Pattern: the pair list of a collective without its bytes, and what its port loads can be worked out from in one pass.

A link that only one lane sends over is one of its ports out, a link over which all flows land at one lane is one of its
ports in, the link of a single pair is both; others are shared. Links that the same flows pass are one port, as slow as
the slowest of them. The load of a port out is that of its lane's sends, the load of a port in that of its lane's
receipts, so that both bounds of `port_times` come out of one sweep over the flows, last released lane first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.network.flows import Coflow

OUT, IN, BOTH, SHARED = 1, 2, 3, 4

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pattern:
    """lanes R; owner_ptr int64[R + 1]; source, destination int32[F] lanes, owner's flows together; path int32[F, hops]
    links, -1 padded. A flow may turn out to have no bytes.
    """

    lanes: int
    owner_ptr: Int64s
    source: Int32s
    destination: Int32s
    path: Int32s

    @classmethod
    def of(cls, coflow: Coflow) -> Pattern:
        """The pair list of a coflow."""
        return cls(coflow.lanes, coflow.owner_ptr, coflow.source, coflow.destination, coflow.path)

    @property
    def flows(self) -> int:
        """F."""
        return len(self.source)

    @cached_property
    def owner(self) -> Int32s:
        """int32[F]: the lane that releases each flow."""
        return np.repeat(np.arange(self.lanes, dtype=np.int32), np.diff(self.owner_ptr))

    def ports(self, slowness: Floats) -> Ports | None:
        """slowness float64[L] ps per byte -> its ports; None where one sweep does not give the bounds of `port_times`:
        lanes that release for others, several flows of a pair, flows without one port out and one as fast in, shared
        links that bind a lane harder than its own ports, or links without capacity.
        """
        pairs = self.source.astype(np.int64) * self.lanes + self.destination
        if np.any(self.owner != self.source) or len(np.unique(pairs)) < len(pairs):
            return None
        port, slow = _merged(self.path, slowness)
        kind = _kinds(port, self.source, self.destination, len(slow))
        kinds = np.where(port >= 0, kind[port], 0)
        if any(np.any(((kinds & way) > 0).sum(axis=1) != 1) for way in (OUT, IN)):
            return None
        out, into = (port[np.arange(self.flows), ((kinds & way) > 0).argmax(axis=1)] for way in (OUT, IN))
        shared = np.where(kinds == SHARED, port, -1)
        worst = np.where(shared >= 0, slow[shared], 0.0).max(axis=1, initial=0.0)
        if np.any(slow[out] != slow[into]) or np.any(worst > slow[out]) or np.any(np.isinf(slow)):
            return None
        if not (_one_each(shared, self.source, out) and _one_each(shared, self.destination, into)):
            return None
        binding = _binding(shared, self.source, out, slow) & _binding(shared, self.destination, into, slow)
        shared = np.where((shared >= 0) & binding[shared], shared, -1)
        return _stretches(self, slow, out, into, np.sort(shared, axis=1)[:, ::-1])


class Ports(NamedTuple):
    """What lane r sends is the stretches part[r]:part[r + 1]: stretch n are flows first[n], first[n] + 1, ..., many[n]
    of them, which land by ports into[n], into[n] + 1, ...: neighbours, so that they are added up several at a time. All
    of them leave by port out[n] and pass the links shared[shared_ptr[n]:shared_ptr[n + 1]]. Ports have slow float64[P]
    ps per byte; lane_in int32[P]: the lane that a port leads to, -1 for others.
    """

    part: Int64s
    first: Int32s
    many: Int32s
    into: Int32s
    out: Int32s
    shared_ptr: Int64s
    shared: Int32s
    slow: Floats
    lane_in: Int32s


def _one_each(shared: Int32s, lane: Int32s, own: Int32s) -> bool:
    """Whether flows of a lane that pass one shared link also pass one and the same own port."""
    flow, hop = np.nonzero(shared >= 0)
    width = int(max(own.max(initial=0), shared.max(initial=0))) + 1
    meeting = (lane[flow].astype(np.int64) * width + shared[flow, hop]) * width
    return len(np.unique(meeting + own[flow])) == len(np.unique(meeting // width))


def _binding(shared: Int32s, lane: Int32s, own: Int32s, slow: Floats) -> npt.NDArray[np.bool_]:
    """bool[P]: shared links that may bind harder than the ports `own` int32[F] of the lanes whose flows they carry.

    Of m lanes with ports of at most c B/s a link of m c is full no longer than the busiest of their ports.
    """
    flow, hop = np.nonzero(shared >= 0)
    meeting = np.unique(np.stack((shared[flow, hop], lane[flow])), axis=1)
    lanes, quickest = np.bincount(meeting[0], minlength=len(slow)), np.full(len(slow), np.inf)
    np.minimum.at(quickest, shared[flow, hop], slow[own[flow]])
    return np.asarray(lanes.astype(np.longdouble) * slow > quickest)  # 64 bits hold the product of a float and a count


def _stretches(pattern: Pattern, slow: Floats, out: Int32s, into: Int32s, shared: Int32s) -> Ports:
    """One port out and one in for each flow, which are numbered apart: a link between a single pair is both."""
    ends_in, place = _landings(into, pattern.destination)
    landing = (len(slow) + place).astype(np.int32)
    lane_in = np.full(len(slow) + len(ends_in), -1, dtype=np.int32)
    lane_in[landing] = pattern.destination
    ways = np.column_stack((pattern.source, out, shared, landing - np.arange(pattern.flows)))
    cut = np.flatnonzero(np.append(True, np.any(np.diff(ways, axis=0) != 0, axis=1))[: pattern.flows])
    passed = shared[cut] >= 0
    return Ports(
        part=np.searchsorted(pattern.source[cut], np.arange(pattern.lanes + 1)).astype(np.int64),
        first=cut.astype(np.int32),
        many=np.diff(np.append(cut, pattern.flows)).astype(np.int32),
        into=landing[cut],
        out=out[cut],
        shared_ptr=np.concatenate(([0], np.cumsum(passed.sum(axis=1)))).astype(np.int64),
        shared=shared[cut][passed].astype(np.int32),
        slow=np.concatenate((slow, slow[ends_in])),
        lane_in=lane_in,
    )


def _landings(into: Int32s, lane: Int32s) -> tuple[Int32s, Int64s]:
    """into, lane int32[F]: the port in and the lane of each flow -> (the ports, the place of each flow's among them).

    Ports that as many flows land by, such as the NICs of all lanes, stand side by side in the order of lanes.
    """
    ports, first, place, flows = np.unique(into, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((lane[first], flows))
    rank = np.empty(len(ports), dtype=np.int64)
    rank[order] = np.arange(len(ports))
    return ports[order].astype(np.int32), rank[place]


def _merged(path: Int32s, slowness: Floats) -> tuple[Int32s, Floats]:
    """path int32[F, hops] -> (the same in ports, ps per byte of each port)."""
    flow, hop = np.nonzero(path >= 0)
    links, local = np.unique(path[flow, hop], return_inverse=True)
    signature = np.zeros(len(links), dtype=np.uint64)
    np.add.at(signature, local, _scrambled(flow))
    ports, port_of = np.unique(signature, return_inverse=True)
    slow = np.zeros(len(ports))
    np.maximum.at(slow, port_of, slowness[links])
    port = np.full(path.shape, -1, dtype=np.int32)
    port[flow, hop] = port_of[local]
    port = np.sort(port, axis=1)[:, ::-1]
    again = np.concatenate((np.zeros((len(port), 1), np.bool_), port[:, 1:] == port[:, :-1]), axis=1)
    port = np.sort(np.where(again, -1, port), axis=1)[:, ::-1]
    hops = int((port >= 0).sum(axis=1).max(initial=1))
    return np.ascontiguousarray(port[:, :hops]), slow


def _scrambled(flow: Int64s) -> npt.NDArray[np.uint64]:
    """A number for each flow, such that sums tell sets of flows apart."""
    return streams.hash_ints(streams.key("pattern", "flow"), flow)


def _kinds(port: Int32s, source: Int32s, destination: Int32s, ports: int) -> npt.NDArray[np.int8]:
    kind = np.zeros(ports, dtype=np.int8)
    flow, hop = np.nonzero(port >= 0)
    for way, lane in ((IN, destination), (OUT, source)):
        low, high = np.full(ports, np.iinfo(np.int64).max), np.full(ports, -1)
        np.minimum.at(low, port[flow, hop], lane[flow])
        np.maximum.at(high, port[flow, hop], lane[flow])
        kind[low == high] |= way
    return np.where(kind > 0, kind, SHARED).astype(np.int8)
