"""KV on its way from pool to pool: coflows on the links that they share, max-min fair among all that are in flight.

A request's KV goes in one piece once its prompt is computed. Rank i of b on the far side takes the i-th b-th of the
heads from those of the a ranks that hold it; where every rank holds all (a latent), the same shares of a whole copy.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from moesim.network import Coflow, Fabric, Group
from moesim.network.collectives import point_to_point
from moesim.network.fluid import FluidNet
from moesim.serving.requests import Ints
from moesim.units import PICOSECONDS_PER_SECOND, to_ps

FAR = 1 << 62
KERNEL = "nccl"  # whose start-up and share of the links' rates stand in for those of a transfer engine


class Links(Protocol):
    """What carries KV."""

    def start(self, request: int, source: Ints, target: Ints, tokens: int, now: int) -> None:
        """KV of a request's tokens leaves the GPUs int64[a] for int64[b]."""

    def soonest(self) -> int:
        """ps at which something happens next, FAR where nothing is on its way."""

    def landed(self, now: int) -> list[int]:
        """Move on to `now`, at most the soonest -> requests whose KV is all there."""

    def abort(self, requests: Sequence[int], now: int) -> None:
        """KV of these is not wanted any more."""


class Instant:
    """An infinite network: what leaves is there."""

    def __init__(self) -> None:
        self._there: list[int] = []
        self._now = 0

    def start(self, request: int, source: Ints, target: Ints, tokens: int, now: int) -> None:
        """See Links."""
        self._there.append(request)
        self._now = now

    def soonest(self) -> int:
        """See Links."""
        return self._now if self._there else FAR

    def landed(self, now: int) -> list[int]:
        """See Links."""
        found, self._there = self._there, []
        return found

    def abort(self, requests: Sequence[int], now: int) -> None:
        """See Links."""
        self._there = [request for request in self._there if request not in requests]


@dataclass
class Ride:
    """A request's KV: flows that have not landed, and the ps that the last byte takes from its port to its landing."""

    left: int
    latency: int


@dataclass
class Wires:
    """fabric: of all pools; bytes_of: tokens -> bytes that a rank of the far side gets."""

    fabric: Fabric
    bytes_of: Callable[[int], float]
    _waiting: list[tuple[int, int, Coflow]] = field(default_factory=list)  # start-up: ps of the first byte, request
    _landing: list[tuple[int, int]] = field(default_factory=list)
    _rides: dict[int, Ride] = field(default_factory=dict)
    _whose: dict[int, int] = field(default_factory=dict)  # flow -> request
    _due: int | None = None

    def __post_init__(self) -> None:
        cluster = self.fabric.cluster
        self._group = Group(cluster, np.arange(cluster.num_devices, dtype=np.int32))
        self._net: FluidNet | None = None
        self.carried: npt.NDArray[np.int64] = np.zeros(len(self.fabric.capacity), dtype=np.int64)

    def start(self, request: int, source: Ints, target: Ints, tokens: int, now: int) -> None:
        """See Links. Raises BadInput where there is no route."""
        one, other, share = shares(len(source), len(target))
        size = np.ceil(self.bytes_of(tokens) * share).astype(np.int64)
        lanes = source[one].astype(np.int32), target[other].astype(np.int32)
        coflow = self.fabric.collective(point_to_point(self._group, *lanes, size), self._group)
        heapq.heappush(self._waiting, (now + int(to_ps(coflow.alpha)), request, coflow))

    def soonest(self) -> int:
        """See Links."""
        first = (one[0][0] if one else FAR for one in (self._waiting, self._landing))
        return min(*first, self._next_end())

    def landed(self, now: int) -> list[int]:
        """See Links."""
        self._move(now)
        while self._waiting and self._waiting[0][0] <= now:
            self._enter(*heapq.heappop(self._waiting)[1:], now)
        found = []
        while self._landing and self._landing[0][0] <= now:
            found.append(heapq.heappop(self._landing)[1])
        return found

    def abort(self, requests: Sequence[int], now: int) -> None:
        """See Links: what has not flowed leaves the links to others."""
        self._move(now)
        self._waiting = [one for one in self._waiting if one[1] not in requests]
        self._landing = [one for one in self._landing if one[1] not in requests]
        heapq.heapify(self._waiting)
        heapq.heapify(self._landing)
        flows = [flow for flow, request in self._whose.items() if request in requests]
        if self._net and flows:
            self._net.abort(np.array(flows, dtype=np.int64))
            self._due = None
        for flow in flows:
            self._rides.pop(self._whose.pop(flow), None)

    def _enter(self, request: int, coflow: Coflow, now: int) -> None:
        """Its bytes begin to flow."""
        moving = coflow.bytes > 0
        latency = int(coflow.latency[moving].max(initial=0)) if coflow.latency is not None else 0
        if not moving.any():
            heapq.heappush(self._landing, (now + latency, request))
            return
        path, size = coflow.path[moving], coflow.bytes[moving]
        if self._net is None:
            self._net = FluidNet(self.fabric.capacity, path.shape[1])
            self._net.advance(now / PICOSECONDS_PER_SECOND)
        numbers = self._net.add(path, size)
        self._rides[request] = Ride(len(numbers), latency)
        self._whose.update((number, request) for number in numbers.tolist())
        self._due = None

    def _next_end(self) -> int:
        """ps of the next end of a flow."""
        if self._due is None:
            due = self._net.next_completion() if self._net else None
            self._due = FAR if due is None else math.ceil(due * PICOSECONDS_PER_SECOND)
        return self._due

    def _move(self, now: int) -> None:
        """The network's clock goes to `now`; flows that end by then are taken out."""
        if self._net is None:
            return
        while self._next_end() <= now:
            due = self._net.next_completion()
            assert due is not None
            for flow in self._net.advance(due).tolist():
                self._ended(self._whose.pop(flow), now)
            self._due = None
        self._net.advance(now / PICOSECONDS_PER_SECOND)
        self.carried = self._net.carried

    def _ended(self, request: int, now: int) -> None:
        ride = self._rides[request]
        ride.left -= 1
        if not ride.left:
            del self._rides[request]
            heapq.heappush(self._landing, (now + ride.latency, request))


def shares(senders: int, receivers: int) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Who sends to whom, int64[F] each, and what share of a receiver's bytes: intervals of heads that overlap."""
    begin, end = (np.arange(senders) + edge for edge in (0, 1))
    low = np.maximum(begin[:, None] * receivers, np.arange(receivers)[None, :] * senders)
    high = np.minimum(end[:, None] * receivers, (np.arange(receivers) + 1)[None, :] * senders)
    one, other = np.nonzero(high > low)
    return one, other, (high - low)[one, other] / senders
