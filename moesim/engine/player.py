"""Player: one graph under way in a World. Its lanes are counters of a Machine; only its alarms touch the clock."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import simpy

from moesim.engine.graph import TaskGraph
from moesim.engine.integrity import check_clock
from moesim.engine.machine import Machine
from moesim.engine.network_user import Lanes, Network
from moesim.engine.sleeper import FOREVER, NORMAL, Sleeper, next_event, wait
from moesim.engine.speed import Speed
from moesim.engine.timeline import NEVER, Carried, Timeline
from moesim.engine.transfers import TransferLog
from moesim.network.port_times import Spans


class Player:
    """A NetworkUser; `done` fires with the Timeline."""

    def __init__(
        self,
        env: simpy.Environment,
        number: int,
        graph: TaskGraph,
        at: int,
        network: Network,
        speed: Speed | None,
        paced: bool,
    ) -> None:
        self.number, self.graph, self.done = number, graph, env.event()
        self.machine = Machine(graph, speed)
        self._env, self._origin, self._network = env, at, network
        self._paced = paced or (speed is not None and not speed.trivial)
        self._status = ["done"] * graph.num_tasks
        self._carried: dict[int, Carried] = {}
        self._recorder = TransferLog()
        self._saturated_before: npt.NDArray[np.float64] | None = None
        self._sleeper = Sleeper(env, NORMAL)
        env.process(self._play())

    def lanes_done(self, task: int, lanes: Lanes) -> None:
        """The network: own sends and receives are over."""
        self.machine.free_lanes(task, lanes, int(self._env.now))
        self._sleeper.wake()

    def arrived(self, task: int, lanes: Lanes) -> None:
        """The network: all bytes for these lanes have landed."""
        self.machine.arrive(task, lanes, int(self._env.now))
        self._sleeper.wake()

    def ended(self, task: int, spans: Spans, status: str, carried: Carried | None = None) -> None:
        """The network: the last port is done."""
        self.machine.end_coflow(task, int(self._env.now))
        self._recorder.add(task, spans)
        self._status[task] = status
        if carried is not None:
            self._carried[task] = carried
        self._sleeper.wake()

    def set_speeds(self, factors: Mapping[int, float]) -> None:
        """Ranks get slower or faster now."""
        for rank, factor in sorted(factors.items()):
            self.machine.set_speed(rank, factor)
        self._sleeper.wake()

    def _play(self) -> Generator[simpy.Event, None, None]:
        """Run compute ahead and tell releases; where speeds change, only to the next event of anybody else, and each
        release at its instant.
        """
        yield wait(self._env, self._origin - int(self._env.now))
        self._saturated_before = self._network.saturated()
        self.machine.begin(int(self._env.now))
        while True:
            now = int(self._env.now)
            until = max(next_event(self._env), now) if self._paced else FOREVER
            reached, ahead = self.machine.run(now, until, pause=self._paced)
            if self.machine.finished:
                reached = max(reached, int(self.machine.task_end.max(initial=now)))
            if reached > now and (self._paced or self.machine.finished):
                yield wait(self._env, reached - now)
            self._tell_releases()
            if self.machine.finished:
                break
            if ahead < FOREVER:
                self._sleeper.set_alarm(ahead)
            yield self._sleeper.sleep()
        self.done.succeed(self.timeline())

    def _tell_releases(self) -> None:
        for task, lanes, at in self.machine.take_releases():
            coflow = self.graph.coflows[self.graph.coflow[task]]
            self._network.release(self, task, coflow, lanes, at)

    def stand_still(self, reasons: tuple[str, ...]) -> None:
        """Nothing will ever happen again, because of these faults: fire `done` with what was played."""
        for task, _ in self._network.standing(self):
            self._status[task] = self._network.status(self, task)
        self.done.succeed(self.timeline(reasons))

    def timeline(self, stopped_by: tuple[str, ...] = ()) -> Timeline:
        """What was played."""
        graph, machine = self.graph, self.machine
        check_clock(graph, machine.task_end)
        before, now = self._saturated_before, self._network.saturated()
        transfers = self._recorder.transfers()
        return Timeline(
            player="simulate", network=self._network.level, origin=self._origin, task=graph.lane_task,
            rank=graph.lane_rank, start=machine.start, end=machine.end, arrival=machine.arrival,
            task_end=machine.task_end, status=tuple(self._status), transfers=transfers,
            num_links=self._network.num_links, stopped_by=stopped_by, links_end=self._network.links_end(transfers),
            link_saturated=None if before is None or now is None else now - before, carried=self._carried,
        )  # fmt: skip

    def waiting(self, link_name: Sequence[str]) -> list[str]:
        """Who waits for what, for the report of a deadlock: text for each task that has started or could be next."""
        texts = []
        for task, links in self._network.standing(self):
            names = _few([link_name[link] for link in links])
            texts.append(f"{self.graph.describe(task)} waits for bytes on links {names}")
        never = np.flatnonzero(self.machine.task_end == NEVER)
        standing = {task for task, _ in self._network.standing(self)}
        for task in never.tolist():
            earlier = self.graph.edge_from[self.graph.edge_ptr[task] : self.graph.edge_ptr[task + 1]]
            unmet = sorted({int(before) for before in earlier if self.machine.task_end[before] == NEVER})
            if task not in standing and unmet:
                texts.append(f"{self.graph.describe(task)} waits for {self.graph.describe(unmet[0])}")
        return texts


def _few(links: list[str]) -> str:
    shown = ", ".join(links[:6])
    return f"{shown} and {len(links) - 6} more" if len(links) > 6 else shown
