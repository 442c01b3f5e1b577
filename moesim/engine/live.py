"""A coflow under way in the fluid network: which lanes have released, what is still to come for each of them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.engine.blocks import Blocks
from moesim.engine.network_user import NetworkUser
from moesim.engine.timeline import NEVER
from moesim.network import Coflow

Int64s = npt.NDArray[np.int64]
DONE, REROUTED, STALLED, ABORTED = "done", "rerouted", "stalled", "aborted"
_WORSE = (DONE, REROUTED, STALLED, ABORTED)


class Store:
    """Blocks of all coflows: what their sets still wait for, when their flows ended."""

    def __init__(self) -> None:
        self.sets: Blocks[Live] = Blocks()
        self.ends: Blocks[Live] = Blocks()


class Live:
    """A coflow of R lanes has 2 R + 1 sets of flows, numbered from `base`: own sends and receives of lane i at i, what
    lands at lane i at R + i, everything at 2 R. Each also counts a token: for the lane's own start, for everybody's.
    """

    def __init__(self, user: NetworkUser, task: int, coflow: Coflow, alpha: int, store: Store) -> None:
        self.user, self.task, self.coflow, self.alpha = user, task, coflow, alpha
        self.lanes, flows = coflow.lanes, len(coflow.bytes)
        self.path = coflow.path
        self.moves = (coflow.bytes > 0) & (coflow.path[:, 0] >= 0) if flows else np.zeros(0, dtype=np.bool_)
        self.unreleased = self.unstarted = self.lanes
        self.last_release = 0
        self.start: Int64s = np.full(flows, NEVER, dtype=np.int64)
        self.number: Int64s = np.full(flows, -1, dtype=np.int64)
        self.delivered: Int64s = np.where(self.moves, coflow.bytes, 0)
        self.status = DONE
        self._store = store
        self.base = store.sets.borrow(self._counts(), self)
        self.first = store.ends.borrow(np.full(flows, NEVER, dtype=np.int64), self)
        self._members = self._sets_of_flows()

    @property
    def num_sets(self) -> int:
        """How many sets it has."""
        return 2 * self.lanes + 1

    @property
    def finish(self) -> Int64s:
        """int64[F] ps: when each flow ended, NEVER before; a view."""
        return self._store.ends.values[self.first : self.first + len(self.start)]

    def landing(self, sets: Int64s) -> Int64s:
        """sets int64[n] that are empty, numbered from 0 -> int64[n] ps: when what belongs to each has landed.

        A lane's own sends are over with their last byte; what it receives is there a latency later.
        """
        assert self.coflow.latency is not None
        lands = self.finish + self.coflow.latency
        found = [max(self._latest(lands, self._inbound, number), self._sent(number)) for number in sets.tolist()]
        return np.array(found, dtype=np.int64)

    def _sent(self, number: int) -> int:
        return self._latest(self.finish, self._outbound, number) if number < self.lanes else 0

    def _latest(self, ends: Int64s, index: tuple[Int64s, Int64s], number: int) -> int:
        """Of the flows of one lane, or of all."""
        ptr, flows = index
        if number < 2 * self.lanes:
            flows = flows[ptr[number % self.lanes] : ptr[number % self.lanes + 1]]
        return int(ends[flows].max(initial=0))

    @cached_property
    def _inbound(self) -> tuple[Int64s, Int64s]:
        return self._by(self.coflow.destination)

    @cached_property
    def _outbound(self) -> tuple[Int64s, Int64s]:
        return self._by(self.coflow.source)

    def _by(self, key: npt.NDArray[np.int32]) -> tuple[Int64s, Int64s]:
        """CSR: the flows that move, by lane."""
        moving = np.flatnonzero(self.moves)
        flows = moving[np.argsort(key[moving], kind="stable")]
        return np.searchsorted(key[flows], np.arange(self.lanes + 1)).astype(np.int64), flows

    def give_back(self) -> None:
        """The coflow has ended."""
        self._store.sets.give_back(self.base, self.num_sets)
        self._store.ends.give_back(self.first, len(self.start))

    def _counts(self) -> Int64s:
        """int64[num_sets]: the flows of each set that will move, and its token."""
        source, destination = self.coflow.source[self.moves], self.coflow.destination[self.moves]
        inbound = np.bincount(destination, minlength=self.lanes)
        own = inbound + np.bincount(source, minlength=self.lanes)
        return np.concatenate((own, inbound, [len(source)])).astype(np.int64) + 1

    def members(self, flows: Int64s) -> npt.NDArray[np.int32]:
        """int32[n, 4]: the sets of these flows."""
        return self._members[flows]

    def _sets_of_flows(self) -> npt.NDArray[np.int32]:
        source, destination = self.coflow.source, self.coflow.destination
        total = np.full(len(source), 2 * self.lanes)
        columns = (source, destination, self.lanes + destination, total)
        return np.asarray(np.stack(columns, axis=1) + self.base, dtype=np.int32)

    def flows_of(self, lanes: Int64s) -> Int64s:
        """The flows that these lanes release and that will move."""
        ptr = self.coflow.owner_ptr
        flows = np.concatenate([np.arange(ptr[lane], ptr[lane + 1]) for lane in lanes.tolist()])
        return np.asarray(flows[self.moves[flows] & (self.finish[flows] == NEVER)], dtype=np.int64)

    def under_way(self) -> Int64s:
        """Flows that have started and not ended."""
        return np.flatnonzero((self.start != NEVER) & (self.finish == NEVER))

    def unfinished(self) -> Int64s:
        """Flows that will move and have not ended."""
        return np.flatnonzero(self.moves & (self.finish == NEVER))

    def crossing(self, flows: Int64s, link: int) -> Int64s:
        """Those of the flows that pass the link."""
        return np.asarray(flows[np.any(self.path[flows] == link, axis=1)], dtype=np.int64)

    def take_detour(self, flows: Int64s, link: int, detour: tuple[int, ...]) -> None:
        """From now on the flows pass `detour` where they passed `link`."""
        rows = [_replaced(row, link, detour) for row in self.path[flows].tolist()]
        width = max(self.path.shape[1], max(map(len, rows), default=0))
        path = np.full((len(self.path), width), -1, dtype=np.int32)
        path[:, : self.path.shape[1]] = self.path
        for flow, row in zip(flows.tolist(), rows, strict=True):
            path[flow] = row + [-1] * (width - len(row))
        self.path = path
        self.mark(REROUTED)

    def mark(self, status: str) -> None:
        """Remember the worst that happened: aborted, else stalled, else rerouted, else done."""
        self.status = max(self.status, status, key=_WORSE.index)


def _replaced(row: list[int], link: int, detour: tuple[int, ...]) -> list[int]:
    return [new for old in row if old >= 0 for new in (detour if old == link else (old,))]
