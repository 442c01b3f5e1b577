"""A coflow under way in the fluid network: which lanes have released, what is still to come for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.engine.blocks import Blocks
from moesim.engine.network_user import NetworkUser
from moesim.engine.timeline import NEVER, Carried
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
        self.path, self.latency = coflow.path, coflow.latency
        self.solved: npt.NDArray[np.int32] | None = None  # the same in the links that the network solves for
        self.moves = (coflow.bytes > 0) & (coflow.path[:, 0] >= 0) if flows else np.zeros(0, dtype=np.bool_)
        self._chained: Int64s | None = None  # latencies of a chain, once a flow took another path
        self.unreleased = self.unstarted = self.lanes
        self.last_release = 0
        self.start: Int64s = np.full(flows, NEVER, dtype=np.int64)
        self.number: Int64s = np.full(flows, -1, dtype=np.int64)
        self.size: Int64s = np.where(self.moves, coflow.bytes, 0)  # bytes that go over the path as it is
        self._legs: list[Carried] = []  # earlier paths
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
        assert self.latency is not None
        lands = self.finish + self.latency
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

    def crossing(self, flows: Int64s, dead: npt.NDArray[np.bool_]) -> Int64s:
        """Those of the flows that pass a link of dead bool[L + 1]; the last is "no link"."""
        return np.asarray(flows[dead[self.path[flows]].any(axis=1)], dtype=np.int64)

    def take_detour(self, flow: int, links: Sequence[int]) -> None:
        """From now on the flow passes these links, and the ports of its kernel beside them."""
        wires, path = self.coflow.wires, list(links)
        if wires is not None:
            self._add_latency(flow, int(wires.latency[path].sum() - wires.latency[self.wire(flow)].sum()))
            path = [one for link in path for one in (int(wires.port[link]), link) if one >= 0]
        width = max(self.path.shape[1], len(path))
        if width > self.path.shape[1] or self.path is self.coflow.path:
            self.path = np.pad(self.path, ((0, 0), (0, width - self.path.shape[1])), constant_values=-1)
        self.path[flow] = path + [-1] * (width - len(path))
        self.mark(REROUTED)

    def _add_latency(self, flow: int, more: int) -> None:
        """The flow's path takes `more` ps now. In a chain all messages that are still to come wait for each of its: a
        start-up that has passed already, so everything lands later by as much.
        """
        chain = self.coflow.chain
        if chain is not None:
            self._chained = chain.latency.copy() if self._chained is None else self._chained
            self._chained[flow] += round(more * float(self.size[flow] / self.coflow.bytes[flow]))
            later = max(chain.ps(self._chained) - chain.ps(chain.latency), 0)
            self.latency = np.full(len(self.size), later, dtype=np.int64)
        elif self.latency is not None:
            self.latency = self.latency.copy() if self.latency is self.coflow.latency else self.latency
            self.latency[flow] += more

    def wire(self, flow: int) -> list[int]:
        """The links of a flow's path, without the ports of its kernel."""
        last = np.iinfo(np.int32).max if self.coflow.wires is None else len(self.coflow.wires.port)
        return [link for link in self.path[flow].tolist() if 0 <= link < last]

    def cut(self, flows: Int64s, left: Int64s, now: int) -> None:
        """What the flows have sent of their bytes stays with the path they took so far; `left` is still to come."""
        sent = self.size[flows] - left
        gone = sent > 0
        some = flows[gone]
        self._legs.append(Carried(some, self.path[some], sent[gone], self.start[some], np.full(len(some), now)))
        self.size[flows], self.start[flows] = left, now

    def lose(self, flows: Int64s, now: int) -> None:
        """What is left of the flows never arrives."""
        self.size[flows], self.finish[flows] = 0, now
        self.mark(ABORTED)

    @property
    def carried(self) -> Carried:
        """Of the flows that have ended, a row for each path that they took."""
        sent = np.flatnonzero(self.size > 0)
        last = Carried(sent, self.path[sent], self.size[sent], self.start[sent], self.finish[sent])
        legs = [*self._legs, last]
        width = max(leg.path.shape[1] for leg in legs)
        wide = [np.pad(leg.path, ((0, 0), (0, width - leg.path.shape[1])), constant_values=-1) for leg in legs]
        flow, size, start, end = (
            np.concatenate([getattr(leg, name) for leg in legs]) for name in ("flow", "bytes", "start", "end")
        )
        return Carried(flow, np.concatenate(wide), size, start, end)

    def mark(self, status: str) -> None:
        """Remember the worst that happened: aborted, else stalled, else rerouted, else done."""
        self.status = max(self.status, status, key=_WORSE.index)
