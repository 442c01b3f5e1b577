"""The network of a World by port loads: every coflow as if it were alone, each lane as soon as its time is known.

The same closed form as in `evaluate`, played event by event: a lane's own end is known once it and everybody that
exchanges bytes with it have released, the arrivals and the last port once all have.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator

import numpy as np
import numpy.typing as npt
import simpy

from moesim.engine.network_user import Lanes, NetworkUser
from moesim.engine.ports import PortTimes
from moesim.engine.sleeper import LATE, Sleeper
from moesim.engine.timeline import NEVER, Transfers
from moesim.network import Coflow
from moesim.network.port_times import owners

Int64s = npt.NDArray[np.int64]


class PortNetwork:
    """level "port_load" or "none". Links have no faults here: a World with faults on links plays the fluid network."""

    def __init__(self, env: simpy.Environment, capacity: npt.NDArray[np.float64], level: str, barrier: bool) -> None:
        self.level, self.num_links = level, len(capacity)
        self._env, self._barrier = env, barrier
        self._ports = PortTimes(capacity, level)
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._news: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._sleeper = Sleeper(env, LATE)
        env.process(self._serve())

    def release(self, user: NetworkUser, task: int, coflow: Coflow, lanes: Lanes, at: int) -> None:
        """Lanes of a task's coflow are there at tick `at`, now or later."""
        waiting = self._waiting.setdefault((user.number, task), _Waiting(coflow))
        ready = waiting.release(lanes, at)
        if not self._barrier:
            for lane in ready.tolist():
                end = self._ports.own_end(coflow, waiting.at, lane)
                self._later(end, _Call(user.lanes_done, task, np.array([lane])))
        if waiting.all_released:
            del self._waiting[user.number, task]
            self._finish(user, task, waiting)

    def standing(self, user: NetworkUser) -> list[tuple[int, list[int]]]:
        """Nothing ever stands still: a link without capacity is refused when it is used."""
        return []

    def saturated(self) -> None:
        """Port loads know how much a link carries, but not when it is full."""

    def status(self, user: NetworkUser, task: int) -> str:
        """Without faults every coflow is done."""
        return "done"

    def links_end(self, transfers: Transfers) -> int:
        """Ticks before which no link has carried all of these; see Timeline."""
        return self._ports.links_end(transfers)

    def _finish(self, user: NetworkUser, task: int, waiting: _Waiting) -> None:
        """All lanes are there: the rest of the coflow is known."""
        coflow = waiting.coflow
        release = np.full_like(waiting.at, waiting.at.max()) if self._barrier else waiting.at
        done, arrival = np.zeros_like(release), np.zeros_like(release)
        end, spans = self._ports.play(coflow, release, done, arrival, f"task {task}")
        for tick in np.unique(arrival).tolist():
            self._later(tick, _Call(user.arrived, task, np.flatnonzero(arrival == tick)))
        for tick in np.unique(done).tolist() if self._barrier else []:
            self._later(tick, _Call(user.lanes_done, task, np.flatnonzero(done == tick)))
        self._later(end, lambda: user.ended(task, spans, "done"))

    def _later(self, tick: int, tell: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._news, (tick, self._count, tell))
        self._sleeper.set_alarm(tick)

    def _serve(self) -> Generator[simpy.Event, None, None]:
        """The process: tell what is due, in order."""
        while True:
            yield self._sleeper.sleep()
            while self._news and self._news[0][0] <= self._env.now:
                heapq.heappop(self._news)[2]()
            if self._news:
                self._sleeper.set_alarm(self._news[0][0])


class _Call:
    """A message about lanes that is sent later."""

    def __init__(self, tell: Callable[[int, Lanes], None], task: int, lanes: Lanes) -> None:
        self._tell, self._task, self._lanes = tell, task, lanes

    def __call__(self) -> None:
        self._tell(self._task, self._lanes)


class _Waiting:
    """at int64[R]: release of each lane of a coflow, NEVER before it."""

    def __init__(self, coflow: Coflow) -> None:
        self.coflow = coflow
        self.at: Int64s = np.full(coflow.lanes, NEVER, dtype=np.int64)
        needs = np.eye(coflow.lanes, dtype=np.bool_)
        owner, moves = owners(coflow.owner_ptr, len(coflow.bytes)), coflow.bytes > 0
        needs[coflow.source[moves], owner[moves]] = True
        needs[coflow.destination[moves], owner[moves]] = True
        self._needs = needs
        self._open = needs.sum(axis=1)

    @property
    def all_released(self) -> bool:
        """Whether every lane is there."""
        return bool(np.all(self.at != NEVER))

    def release(self, lanes: Lanes, now: int) -> Lanes:
        """These lanes are there -> the lanes whose own end is known since then."""
        self.at[lanes] = now
        before = self._open
        self._open = before - self._needs[:, lanes].sum(axis=1)
        return np.flatnonzero((before > 0) & (self._open == 0))
