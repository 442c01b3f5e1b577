"""A fluid network that is told which sets of flows to watch: it runs by itself until one of them is empty."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import moesim.network.fluid_kernel as kernel
from moesim.network.compiled import njit
from moesim.network.fluid import FluidNet

PICOSECONDS = 1e12
SETS = 4  # how many watched sets a flow belongs to
FOREVER = (1 << 63) - 1
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


class Ran(NamedTuple):
    """tick of the last end; empty int32: sets that became empty then; ended, ended_at int64: flows and their ticks."""

    tick: int
    empty: Int32s
    ended: Int64s
    ended_at: Int64s


class WatchedNet:
    """FluidNet on a clock of integer ps, with a counter per set of flows; the end of a flow counts it out of its sets.

    A flow ends at the first tick that is not before its exact end.
    """

    def __init__(self, capacity: npt.NDArray[np.float64], hops: int, window: float) -> None:
        self.net = FluidNet(capacity, hops, window=window)
        self._origin = 0  # the tick at which the net's own clock of float seconds stood at 0
        self._members = np.zeros((1024, SETS), dtype=np.int32)

    def add(self, now: int, path: Int32s, size: Int64s, members: Int32s) -> Int64s:
        """path int32[n, hops], size int64[n] > 0, members int32[n, SETS]: flows that start now -> int64[n] numbers.

        Everything that ends by now must have been run.
        """
        self._set_clock(now)
        numbers = self.net.add(path, size)
        self._reserve(int(numbers.max(initial=0)) + 1)
        self._members[numbers] = members
        return numbers

    def run(self, until: int, left: Int64s) -> Ran:
        """Play ends up to tick `until` and count them out of left int64[sets], stopping where sets become empty."""
        if not self.net.active:
            return Ran(until, np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
        state, net = self.net._state, self.net
        net.now, *ran = _run(state, net.now, self._seconds(until), net.window, self._members, left, self._origin)
        return Ran(self._tick(net.now), *ran)

    def next_end(self) -> int | None:
        """The tick of the next end; None where nothing moves."""
        due = self.net.next_completion()
        return None if due is None else self._tick(due)

    def set_capacity(self, now: int, link: int, capacity: float) -> None:
        """A link changes now."""
        self._set_clock(now)
        self.net.set_capacity(link, capacity)

    def take_back(self, now: int, flows: Int64s) -> npt.NDArray[np.float64]:
        """Stop flows -> float64[n] bytes that had not arrived; their sets still count them."""
        self._set_clock(now)
        return self.net.abort(flows)

    def _seconds(self, tick: int) -> float:
        return (tick - self._origin) / PICOSECONDS

    def _tick(self, seconds: float) -> int:
        return self._origin + int(np.ceil(seconds * PICOSECONDS - 1e-3))

    def _set_clock(self, now: int) -> None:
        """Float seconds start anew wherever the network is idle, so that long runs lose no ticks."""
        if not self.net.active:
            self._origin, self.net.now = now, 0.0
        self.net.now = max(self.net.now, self._seconds(now))

    def _reserve(self, slots: int) -> None:
        if slots > len(self._members):
            more = np.zeros((2 * slots - len(self._members), SETS), dtype=np.int32)
            self._members = np.concatenate((self._members, more))


@njit
def _run(state: Any, now: float, until: float, window: float, members: Any, left: Any, origin: int) -> Any:
    """Completions in order, until one of them empties a set or the next comes after `until`."""
    empty, count = np.empty(left.shape[0], np.int32), 0
    ended, total = np.empty(state.counter[kernel.ACTIVE], np.int64), 0
    ended_at = np.empty(ended.shape[0], np.int64)
    while count == 0:
        kernel.settle(state, now)
        due = kernel.next_due(state)
        if due > until or due == np.inf:
            break
        now = max(due, now)
        tick = origin + np.int64(np.ceil(now * PICOSECONDS - 1e-3))
        for flow in kernel.complete(state, now, window):
            ended[total], ended_at[total] = flow, tick
            total += 1
            for member in range(members.shape[1]):
                which = members[flow, member]
                left[which] -= 1
                if left[which] == 0:
                    empty[count] = which
                    count += 1
    return now, empty[:count].copy(), ended[:total].copy(), ended_at[:total].copy()
