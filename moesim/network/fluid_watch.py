"""A fluid network that is told which sets of flows to watch: it runs by itself until one of them is empty."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import moesim.network.fluid_kernel as kernel
from moesim.compiled import njit
from moesim.network.fluid import FluidNet
from moesim.units import LAST_TICK

PICOSECONDS = 1e12
TOLERANCE = 1e-3  # ticks by which an end may come after a tick and still count for it: float rounding
SETS = 4  # how many watched sets a flow belongs to
FOREVER = (1 << 63) - 1
BEYOND = FOREVER - 1  # some time that the clock cannot tell
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


class Ran(NamedTuple):
    """tick of the last end; empty int32[k]: sets that became empty then; ahead: the next end's tick, or FOREVER."""

    tick: int
    empty: Int32s
    ahead: int


class WatchedNet:
    """FluidNet on a clock of integer ps, with a counter per set of flows; the end of a flow counts it out of its sets.

    A flow ends at the first tick that is not before its exact end.
    """

    def __init__(self, capacity: npt.NDArray[np.float64], window: float) -> None:
        self.net = FluidNet(capacity, 1, window=window)
        self._origin = 0  # the tick at which the net's own clock of float seconds stood at 0
        self._members = np.zeros((1024, SETS), dtype=np.int32)
        self._place = np.zeros(1024, dtype=np.int64)

    def add(self, now: int, path: Int32s, size: Int64s, members: Int32s, place: Int64s) -> Int64s:
        """path int32[n, hops], size int64[n] > 0: flows that start now -> their numbers int64[n].

        members int32[n, SETS]: sets of each; place int64[n]: where `run` writes its end. Everything that ends by now
        must have been run.
        """
        self._set_clock(now)
        numbers = self.net.add(path, size)
        self._reserve(int(numbers.max(initial=0)) + 1)
        self._members[numbers], self._place[numbers] = members, place
        return numbers

    def run(self, until: int, left: Int64s, finish: Int64s) -> Ran:
        """Play ends up to tick `until`, but not past the first instant in which sets become empty.

        Each is written into finish int64[...] and counted out of left int64[sets].
        """
        if not self.net.active:
            return Ran(until, np.zeros(0, np.int32), FOREVER)
        net, limit = self.net, self._seconds(min(until, LAST_TICK)) + TOLERANCE / PICOSECONDS
        net.now, empty, due = _run_until(
            net._state, net.now, limit, net.window, self._origin, self._members, self._place, left, finish
        )
        ahead = FOREVER if np.isinf(due) else min(self._tick(due), BEYOND)
        return Ran(self._tick(net.now), empty, ahead if len(empty) else max(ahead, min(until, LAST_TICK) + 1))

    def set_capacity(self, now: int, link: int, capacity: float) -> None:
        """A link changes now."""
        self._set_clock(now)
        self.net.set_capacity(link, capacity)

    def take_back(self, now: int, flows: Int64s) -> npt.NDArray[np.float64]:
        """Stop flows -> float64[n] bytes that had not arrived; their sets still count them."""
        self._set_clock(now)
        return self.net.abort(flows)

    @property
    def saturated(self) -> npt.NDArray[np.float64]:
        """float64[L]: seconds in which each link was full so far."""
        return self.net.saturated

    def _seconds(self, tick: int) -> float:
        return (tick - self._origin) / PICOSECONDS

    def _tick(self, seconds: float) -> int:
        return self._origin + int(np.ceil(seconds * PICOSECONDS - TOLERANCE))

    def _set_clock(self, now: int) -> None:
        """Float seconds start anew wherever the network is idle, so that long runs lose no ticks."""
        if not self.net.active:
            kernel.settle(self.net._state, self.net.now)
            self._origin, self.net.now = now, 0.0
        self.net.now = max(self.net.now, self._seconds(now))

    def _reserve(self, slots: int) -> None:
        if slots > len(self._place):
            more = 2 * slots - len(self._place)
            self._members = np.concatenate((self._members, np.zeros((more, SETS), dtype=np.int32)))
            self._place = np.concatenate((self._place, np.zeros(more, dtype=np.int64)))


@njit
def _run_until(
    state: Any, now: float, until: float, window: float, origin: int, members: Any, place: Any, left: Any, finish: Any
) -> Any:
    """Completions in order, until one of them empties a set or the next comes after `until` -> (now, empty, next)."""
    empty, count = np.empty(left.shape[0], np.int32), 0
    while True:
        kernel.settle(state, now)
        due = max(kernel.next_due(state), now)
        if due > until or due == np.inf or count > 0:
            return now, empty[:count].copy(), due
        now = due
        tick = origin + np.int64(np.ceil(now * PICOSECONDS - TOLERANCE))
        for flow in kernel.complete(state, now, window):
            finish[place[flow]] = tick
            for member in range(SETS):
                which = members[flow, member]
                left[which] -= 1
                if left[which] == 0:
                    empty[count] = which
                    count += 1
