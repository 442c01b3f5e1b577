"""Port-load times on one set of links: what both players know of the closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, Deadlock
from moesim.network import Coflow
from moesim.network.port_times import Spans, coflow_times, owners, set_end, ticks_per_byte
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]


class PortTimes:
    """Port-load times on one set of links, with the scratch arrays they need."""

    def __init__(self, capacity: npt.NDArray[np.float64], network: str) -> None:
        if np.any(np.isnan(capacity)) or np.any(capacity < 0):
            raise BadInput("a link capacity is negative or NaN")
        self.num_links = len(capacity)
        self.instant = network == "none"
        self.slowness = np.zeros(self.num_links) if self.instant else ticks_per_byte(capacity)
        self.scratch = tuple(np.zeros(self.num_links, dtype=np.int64) for _ in range(3))

    def alpha(self, coflow: Coflow) -> int:
        """Ticks between a release and its first byte."""
        return 0 if self.instant else int(to_ps(coflow.alpha))

    def play(
        self, coflow: Coflow, release: Int64s, done: Int64s, arrival: Int64s, name: str
    ) -> tuple[int, Spans]:  # fmt: skip
        """release int64[R] -> (end of the last port, what each link carried); fills done and arrival int64[R].

        Raises Deadlock, naming the coflow, where bytes have to pass a link without capacity.
        """
        end, spans = coflow_times(
            release, self.alpha(coflow), coflow.owner_ptr, coflow.source, coflow.destination, coflow.bytes, coflow.path,
            self.slowness, self.scratch[0], self.scratch[1], self.scratch[2], done, arrival,
        )  # fmt: skip
        if np.any(np.isinf(self.slowness[spans[0]])):
            raise Deadlock(f"{name} sends bytes over a link without capacity")
        return int(end), Spans(*spans)

    def own_end(self, coflow: Coflow, release: Int64s, lane: int) -> int:
        """When one lane's own sends and receives are done, once all that exchange bytes with it have released."""
        start = release[owners(coflow.owner_ptr, len(coflow.bytes))] + self.alpha(coflow)
        ends = [self._end(coflow, start, key == lane) for key in (coflow.source, coflow.destination)]
        return max(int(release[lane]) + self.alpha(coflow), *ends)

    def _end(self, coflow: Coflow, start: Int64s, chosen: npt.NDArray[np.bool_]) -> int:
        flows = np.flatnonzero(chosen & (coflow.bytes > 0)).astype(np.int32)
        flows = flows[np.argsort(-start[flows], kind="stable")]
        return int(set_end(flows, start, coflow.bytes, coflow.path, self.slowness, self.scratch[0]))
