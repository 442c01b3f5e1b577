"""Port-load times on one set of links: what both players know of the closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moesim.compiled import interpreted
from moesim.engine.timeline import Transfers, links_end
from moesim.errors import BadInput, Deadlock
from moesim.network import Coflow
from moesim.network import port_times_numpy as at_once
from moesim.network.port_times import Spans, coflow_times, landed, owners, set_end, ticks_per_byte
from moesim.units import LAST_TICK, beyond_clock, to_ps

Int64s = npt.NDArray[np.int64]
NO_LATENCY: Int64s = np.zeros(0, dtype=np.int64)
NOTHING_CARRIED = Spans(np.zeros(0, dtype=np.int32), NO_LATENCY, NO_LATENCY, NO_LATENCY)


class PortTimes:
    """Port-load times on one set of links, with the scratch arrays they need."""

    def __init__(self, capacity: npt.NDArray[np.float64], network: str, link_name: Sequence[str] = ()) -> None:
        if np.any(np.isnan(capacity)) or np.any(capacity < 0):
            raise BadInput("a link capacity is negative or NaN")
        self.num_links, self._link_name = len(capacity), link_name
        self.instant, self._capacity = network == "none", capacity
        self.slowness = np.zeros(self.num_links) if self.instant else ticks_per_byte(capacity)
        self.scratch = tuple(np.zeros(self.num_links, dtype=np.int64) for _ in range(3))

    def alpha(self, coflow: Coflow) -> int:
        """Ticks between a release and its first byte."""
        return 0 if self.instant else int(to_ps(coflow.alpha))

    def play(
        self, coflow: Coflow, release: Int64s, done: Int64s, arrival: Int64s, name: str
    ) -> tuple[int, Spans]:  # fmt: skip
        """release int64[R] -> (end of the last port, what each link carried); fills done and arrival int64[R].

        Without a network nothing is carried. Raises Deadlock, naming the coflow, where bytes have to pass a link
        without capacity; BadInput, naming the link, where they take longer than the clock can tell.
        """
        if self.instant:
            return _at_an_instant(coflow, release, done, arrival)
        times = at_once.coflow_times if interpreted() else coflow_times
        end, spans = times(
            release, self.alpha(coflow), coflow.owner_ptr, coflow.source, coflow.destination, coflow.bytes, coflow.path,
            *self._latency(coflow), self.slowness, self.scratch[0], self.scratch[1], self.scratch[2], done, arrival,
        )  # fmt: skip
        if np.any(np.isinf(self.slowness[spans[0]])):
            raise Deadlock(f"{name} sends bytes over a link without capacity")
        if end >= LAST_TICK:
            slowest = int(spans[0][np.argmax(spans[2])]) if len(spans[0]) else -1
            raise beyond_clock(f"{name} ends too late over link {self._named(slowest)}")
        return int(end), Spans(*spans)

    def links_end(self, transfers: Transfers) -> int:
        """Ticks before which no link has carried all of these; see Timeline."""
        return 0 if self.instant else links_end(transfers, self._capacity)

    def _named(self, link: int) -> str:
        return self._link_name[link] if self._link_name else str(link)

    def own_end(self, coflow: Coflow, release: Int64s, lane: int) -> int:
        """When one lane's own sends and receives are done, once all that exchange bytes with it have released."""
        start = np.minimum(release[owners(coflow.owner_ptr, len(coflow.bytes))] + self.alpha(coflow), LAST_TICK)
        sent, got = (_last_first(coflow, start, key == lane) for key in (coflow.source, coflow.destination))
        links = (coflow.path, self.slowness, self.scratch[0])
        return max(
            int(release[lane]) + self.alpha(coflow),
            int(set_end(sent, start, coflow.bytes, *links)),
            int(landed(got, start, coflow.bytes, *links, *self._latency(coflow))),
        )

    def _latency(self, coflow: Coflow) -> tuple[Int64s, Int64s]:
        """Of each flow, and the steps at which it counts."""
        if coflow.latency is None or self.instant:
            return NO_LATENCY, NO_LATENCY
        return coflow.latency, coflow.steps_of_latency


def _at_an_instant(coflow: Coflow, release: Int64s, done: Int64s, arrival: Int64s) -> tuple[int, Spans]:
    """`PortTimes.play` where bytes take no time: a lane waits for those that release what it sends and receives.

    What the closed form says with links of infinite capacity, at a tenth of its cost: three rungs of four are this.
    """
    travels = (coflow.bytes > 0) & (coflow.path[:, 0] >= 0)
    start = release[owners(coflow.owner_ptr, len(coflow.bytes))][travels]
    done[:] = release
    for key in (coflow.source, coflow.destination):
        np.maximum.at(done, key[travels], start)
    arrival[:] = release.max()
    return int(arrival[0]), NOTHING_CARRIED


def _last_first(coflow: Coflow, start: Int64s, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """The chosen flows that have bytes, last start first."""
    flows = np.flatnonzero(chosen & (coflow.bytes > 0)).astype(np.int32)
    return np.asarray(flows[np.argsort(-start[flows], kind="stable")])
