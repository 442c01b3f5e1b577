"""Max-min fair fluid network: flows share links, rates change when flows come and go.

Every link has a water level: the rate at which its unsaturated flows would fill it, infinite where they cannot. A
flow's rate is the least level on its path, and levels are consistent when each finite one makes its link exactly full:

    for every link l:  sum over flows f on l of min(level_l, least level of f elsewhere) = capacity_l

That is the bottleneck condition, so the rates are max-min fair whichever way the levels were found (Bertsekas and
Gallager, Data Networks, section 6.5.2). When a flow ends only the levels near its links change (1 to 8 % of the rates
in all-to-all traffic), so `settle` repairs dirty links, lowest level first, until nothing changes. Plain progressive
filling is the start, the oracle, and the fallback where repair would not settle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import moesim.network.fluid_kernel as kernel
from moesim.errors import BadInput, Deadlock

Floats = npt.NDArray[np.float64]


class FluidNet:
    """A stateful network: flows are added, time advances to completions, capacities change, flows are taken back.

    capacity float64[L] B/s, 0 for a dead link. Time is in seconds and never goes back. `carried` int64[L] counts the
    bytes of finished flows per link, `busy` float64[L] the seconds in which a link had any flow.
    """

    def __init__(self, capacity: Floats, hops: int, *, window: float = 0.0) -> None:
        if np.any(~np.isfinite(capacity)) or np.any(capacity < 0):
            raise BadInput("a link capacity is negative, NaN or infinite")
        self._state = kernel.new_state(np.ascontiguousarray(capacity, dtype=np.float64), hops, 1024)
        self.window = window
        self.now = 0.0

    @property
    def active(self) -> int:
        """Flows that are not finished."""
        return int(self._state.counter[kernel.ACTIVE])

    @property
    def carried(self) -> npt.NDArray[np.int64]:
        """int64[L]: bytes of finished flows."""
        return self._state.carried.copy()

    @property
    def busy(self) -> Floats:
        """float64[L]: seconds in use so far."""
        running = np.where(self._state.number > 0, self.now - self._state.busy_since, 0.0)
        return self._state.busy + running

    def add(self, path: npt.NDArray[np.int32], size: npt.NDArray[np.int64] | Floats) -> npt.NDArray[np.int64]:
        """path int32[n, hops] (-1 padded), size int64[n] bytes, all starting now -> int64[n] flow numbers.

        Every flow needs at least one link and one byte.
        """
        free = len(self._state.size) - self.active
        if len(size) > free:
            self._state = kernel.grown(self._state, 2 * (self.active + len(size)))
        numbers = np.empty(len(size), dtype=np.int64)
        kernel.add(self._state, np.ascontiguousarray(path), np.asarray(size, dtype=np.float64), numbers, self.now)
        return numbers

    def next_completion(self) -> float | None:
        """When the next flow ends, in seconds; None where nothing moves. Rates are brought up to date first."""
        kernel.settle(self._state, self.now)
        due = kernel.next_due(self._state)
        return None if np.isinf(due) else float(max(due, self.now))

    def advance(self, to: float) -> npt.NDArray[np.int64]:
        """Move time to `to` seconds -> int64[n] flows that ended by then."""
        kernel.settle(self._state, self.now)
        self.now = max(to, self.now)
        ended: npt.NDArray[np.int64] = kernel.complete(self._state, self.now, self.window)
        return ended

    def set_capacity(self, link: int, capacity: float) -> None:
        """A link gets faster, slower, or dead (0)."""
        kernel.set_capacity(self._state, link, capacity)

    def abort(self, flows: npt.NDArray[np.int64]) -> Floats:
        """Take flows back -> float64[n] bytes that had not arrived."""
        kernel.settle(self._state, self.now)
        left: Floats = kernel.abort(self._state, np.asarray(flows, dtype=np.int64), self.now)
        return left

    def rates(self) -> Floats:
        """float64[flow numbers]: B/s of every flow now, 0 for those that are not active."""
        kernel.settle(self._state, self.now)
        return self._state.rate.copy()


def finish_times(
    capacity: Floats,
    path_ptr: npt.NDArray[np.int64],
    path_idx: npt.NDArray[np.int32],
    size: npt.NDArray[np.int64] | Floats,
    start: Floats | None = None,
    *,
    window: float = 0.0,
) -> Floats:
    """capacity float64[L] B/s, CSR paths of F flows, size[F] bytes, start float64[F] s or None -> finish float64[F] s.

    Max-min fair. A flow of no bytes ends at its start. `window` merges completions that lie within that fraction of the
    time since the flow began, for speed; 0 is exact. Raises BadInput on a flow without links, Deadlock on stalled ones.
    """
    begin = np.zeros(len(size)) if start is None else np.asarray(start, dtype=np.float64)
    count = np.diff(path_ptr)
    lost = np.flatnonzero((count == 0) & (np.asarray(size) > 0))
    if len(lost):
        raise BadInput(f"flow {lost[0]} has bytes and no route")
    path = np.full((len(size), max(int(count.max(initial=1)), 1)), -1, dtype=np.int32)
    path[np.arange(path.shape[1]) < count[:, None]] = path_idx
    finish = begin.copy()
    waiting = np.flatnonzero(np.asarray(size) > 0)
    waiting = waiting[np.argsort(begin[waiting], kind="stable")]
    _play(
        FluidNet(capacity, path.shape[1], window=window),
        path,
        np.asarray(size, dtype=np.float64),
        begin,
        waiting,
        finish,
    )
    return finish


def _play(
    net: FluidNet, path: npt.NDArray[np.int32], size: Floats, begin: Floats,
    waiting: npt.NDArray[np.int64], finish: Floats,
) -> None:  # fmt: skip
    """Add flows at their starts, write their ends into `finish`."""
    flow_of: dict[int, int] = {}
    at = 0
    while at < len(waiting) or net.active:
        arrival = begin[waiting[at]] if at < len(waiting) else np.inf
        due = net.next_completion()
        if due is None and not np.isfinite(arrival):
            raise Deadlock(f"{net.active} flows are stalled, the first is flow {min(flow_of.values())}")
        if due is not None and due <= arrival:
            for number in net.advance(due):
                finish[flow_of.pop(int(number))] = net.now
            continue
        for number in net.advance(float(arrival)):
            finish[flow_of.pop(int(number))] = net.now
        stop = at + int(np.searchsorted(begin[waiting[at:]], arrival, side="right"))
        numbers = net.add(path[waiting[at:stop]], size[waiting[at:stop]])
        flow_of.update(zip(numbers.tolist(), waiting[at:stop].tolist(), strict=True))
        at = stop
