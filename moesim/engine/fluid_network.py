"""The fluid network of a World: one simpy process owns it.

A coflow is submitted once and released lane by lane. The process starts all flows of an instant together, runs the
solver ahead to the next event of anybody else, and tells users when lanes are done, bytes have landed, coflows ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import simpy

from moesim.engine.faults import Fault, FaultTable
from moesim.engine.live import ABORTED, STALLED, Live, Store
from moesim.engine.network_user import NetworkUser
from moesim.engine.sleeper import FOREVER, LATE, Sleeper, next_event
from moesim.engine.timeline import Transfers
from moesim.errors import BadInput
from moesim.network import Coflow
from moesim.network.fluid_watch import Ran, WatchedNet
from moesim.network.port_times import Spans, played_spans
from moesim.units import LAST_TICK, beyond_clock, show_bandwidth, to_ps

MAX_HOPS = 16  # links on a path, kernel ports and detours included
Int64s = npt.NDArray[np.int64]


class FluidNetwork:
    """Coflows on max-min fair links; faults change capacities, dead links stall, reroute or abort what crosses them."""

    level = "fluid"

    def __init__(
        self,
        env: simpy.Environment,
        capacity: npt.NDArray[np.float64],
        faults: FaultTable,
        barrier: bool,
        window: float,
        link_name: Sequence[str],
    ) -> None:  # fmt: skip
        self._env, self._faults, self._barrier, self._capacity = env, faults, barrier, capacity
        self.num_links, self._link_name = len(capacity), link_name
        self._net = WatchedNet(capacity, MAX_HOPS, window)
        self._live: dict[tuple[int, int], Live] = {}
        self._store = Store()
        self._starts: list[tuple[int, int, Live, Int64s]] = []
        self._started = 0
        self._landings: list[tuple[int, int]] = []  # tick at which a set's last byte lands, the set
        self._ran: Ran | None = None
        self._changes = faults.changes()
        self._dead: dict[int, Fault] = {}
        self._scratch = tuple(np.zeros(len(capacity), dtype=np.int64) for _ in range(3))
        self._sleeper = Sleeper(env, LATE)
        env.process(self._serve())

    def release(self, user: NetworkUser, task: int, coflow: Coflow, lanes: Int64s, at: int) -> None:
        """Lanes of a task's coflow are there at tick `at`, now or later. Raises BadInput on long paths."""
        live = self._live.get((user.number, task)) or self._submit(user, task, coflow)
        live.unreleased -= len(lanes)
        live.last_release = max(live.last_release, at)
        if not self._barrier:
            self._start_later(live, lanes, at)
        elif live.unreleased == 0:
            self._start_later(live, np.arange(live.lanes), live.last_release)

    def standing(self, user: NetworkUser) -> list[tuple[int, list[int]]]:
        """(task, links of its unfinished flows) of the user's coflows that have flows under way, in order of tasks."""
        mine = [live for (number, _), live in sorted(self._live.items()) if number == user.number]
        return [(live.task, _links(live, live.under_way())) for live in mine if len(live.under_way())]

    def saturated(self) -> npt.NDArray[np.float64]:
        """float64[L]: seconds in which each link was full so far, whoever's flows filled it."""
        return self._net.saturated

    def links_end(self, transfers: Transfers) -> int:
        """Links are shared here: coflows end when theirs have carried them."""
        return 0

    def status(self, user: NetworkUser, task: int) -> str:
        """Of a coflow under way."""
        return self._live[user.number, task].status

    def _submit(self, user: NetworkUser, task: int, coflow: Coflow) -> Live:
        if coflow.path.shape[1] > MAX_HOPS:
            raise BadInput(f"a path of {coflow.path.shape[1]} links; at most {MAX_HOPS} can be played")
        live = Live(user, task, coflow, int(to_ps(coflow.alpha)), self._store)
        self._live[user.number, task] = live
        return live

    def _start_later(self, live: Live, lanes: Int64s, release: int) -> None:
        self._started += 1
        heapq.heappush(self._starts, (release + live.alpha, self._started, live, lanes))
        self._sleeper.wake()

    def _serve(self) -> Generator[simpy.Event, None, None]:
        """The process: ends first, then faults, then starts, then a look ahead."""
        while True:
            yield self._sleeper.sleep()
            now = int(self._env.now)
            self._catch_up(now)
            self._land(now)
            self._strike(now)
            self._start(now)
            self._look_ahead(now)

    def _run(self, until: int) -> Ran:
        return self._net.run(until, self._store.sets.values, self._store.ends.values)

    def _catch_up(self, now: int) -> None:
        """Everything that ends by now. What was run ahead still holds: nothing changed in between."""
        while True:
            ran = self._ran if self._ran and (len(self._ran.empty) or self._ran.ahead > now) else self._run(now)
            if len(ran.empty) and ran.tick <= now:
                self._ran = ran._replace(empty=ran.empty[:0])
                self._tell(ran.empty, now)
            elif len(ran.empty) or ran.ahead > now:
                self._ran = ran
                return

    def _look_ahead(self, now: int) -> None:
        """Run the solver up to the next event of anybody else; nobody can act before it."""
        horizon = next_event(self._env)
        if horizon <= now:
            self._sleeper.wake()
            return
        alarms = [self._starts[0][0]] if self._starts else []
        alarms += self._changes[:1] if self._live else []
        alarms += [self._landings[0][0]] if self._landings else []
        limit = min([horizon, *alarms])
        if self._ran is None or (not len(self._ran.empty) and self._ran.ahead <= limit):
            self._ran = self._run(limit)
        alarms.append(self._ran.tick if len(self._ran.empty) else self._ran.ahead)
        if self._ran.ahead == min(alarms) and LAST_TICK < self._ran.ahead < min(horizon, FOREVER):
            raise self._beyond_clock()
        if min(alarms) < FOREVER:
            self._sleeper.set_alarm(max(min(alarms), now))

    def _beyond_clock(self) -> BadInput:
        """Some flow's end lies where the clock cannot tell it, and nothing comes before that could change its rate."""
        links = {link for live in self._live.values() for link in _links(live, live.under_way())}
        slowest = min(links, key=lambda link: self._capacity[link])
        rate = show_bandwidth(float(self._capacity[slowest]))
        return beyond_clock(f"bytes over link {self._link_name[slowest]} ({rate}) end too late")

    def _start(self, now: int) -> None:
        """The flows of all lanes whose start has come; the solver sees them together."""
        empty: list[int] = []
        while self._starts and self._starts[0][0] <= now:
            _, _, live, lanes = heapq.heappop(self._starts)
            flows = live.flows_of(lanes)
            live.start[flows] = now
            self._enter(live, flows, live.coflow.bytes[flows], now)
            live.unstarted -= len(lanes)
            empty += self._count_out(live.base + lanes)
            if live.unstarted == 0:
                empty += self._count_out(live.base + np.arange(live.lanes, live.num_sets))
        self._tell(np.array(empty, dtype=np.int32), now)

    def _enter(self, live: Live, flows: Int64s, size: Int64s, now: int) -> None:
        """Flows set out, or go on by another path."""
        for link, fault in sorted(self._dead.items()):
            crossing = live.crossing(flows, link)
            if len(crossing) and fault.then == "reroute":
                live.take_detour(crossing, link, fault.detour)
        if not len(flows):
            return
        self._forget_ahead()
        live.number[flows] = self._net.add(now, live.path[flows], size, live.members(flows), live.first + flows)
        for link, fault in sorted(self._dead.items()):
            if len(live.crossing(flows, link)):
                self._suffer(live, link, fault, now)

    def _suffer(self, live: Live, link: int, fault: Fault, now: int) -> None:
        """The coflow has flows under way over a dead link."""
        crossing = live.crossing(live.under_way(), link)
        if not len(crossing) or live.status == ABORTED:
            return
        if fault.then == "abort":
            self._abort(live, now)
        elif fault.then == "reroute":
            left = self._take_back(live, crossing, now)
            live.take_detour(crossing, link, fault.detour)
            self._enter(live, crossing, np.maximum(np.ceil(left), 1).astype(np.int64), now)
        else:
            live.mark(STALLED)

    def _abort(self, live: Live, now: int) -> None:
        """Nothing more of the coflow will arrive: all its flows end now, those to come included."""
        under_way, rest = live.under_way(), live.unfinished()
        live.delivered[rest] = 0
        left = self._take_back(live, under_way, now)
        live.delivered[under_way] = live.coflow.bytes[under_way] - np.ceil(left).astype(np.int64)
        live.finish[rest] = now
        live.mark(ABORTED)
        self._tell(np.array(self._count_out(live.members(rest).ravel().astype(np.int64)), dtype=np.int32), now)

    def _take_back(self, live: Live, flows: Int64s, now: int) -> npt.NDArray[np.float64]:
        self._forget_ahead()
        return self._net.take_back(now, live.number[flows])

    def _forget_ahead(self) -> None:
        """Rates will change: what was run ahead keeps the sets that are empty, but not when the next flow ends."""
        if self._ran is not None:
            self._ran = self._ran if len(self._ran.empty) else None

    def _strike(self, now: int) -> None:
        """Faults that begin or end by now."""
        if not self._changes or self._changes[0] > now:
            return
        self._changes = [tick for tick in self._changes if tick > now]
        self._forget_ahead()
        for link, factor in sorted(self._faults.link_factors(now).items()):
            self._net.set_capacity(now, link, float(self._capacity[link]) * factor)
        self._dead = self._faults.dead_links(now)
        for link, fault in sorted(self._dead.items()):
            for live in list(self._live.values()):
                self._suffer(live, link, fault, now)

    def _count_out(self, sets: Int64s) -> list[int]:
        """Take one (or as many as a set occurs) from each set -> those that became empty."""
        np.subtract.at(self._store.sets.values, sets, 1)
        return [int(number) for number in np.unique(sets) if self._store.sets.values[number] == 0]

    def _tell(self, empty: npt.NDArray[np.int32], now: int) -> None:
        """Sets became empty: their users hear of it."""
        for live, sets in self._by_live(empty):
            if live.coflow.latency is None:
                self._report(live, sets)
                continue
            for number, tick in zip(sets.tolist(), live.landing(sets).tolist(), strict=True):
                heapq.heappush(self._landings, (max(tick, now), live.base + number))
        self._land(now)

    def _land(self, now: int) -> None:
        """Sets that were empty before, and whose last byte has landed by now."""
        while self._landings and self._landings[0][0] <= now:
            _, number = heapq.heappop(self._landings)
            live = self._store.sets.owner[number]
            self._report(live, np.array([number - live.base]))

    def _report(self, live: Live, sets: Int64s) -> None:
        own, inbound = sets[sets < live.lanes], sets[(sets >= live.lanes) & (sets < 2 * live.lanes)]
        if len(own):
            live.user.lanes_done(live.task, own)
        if len(inbound):
            live.user.arrived(live.task, inbound - live.lanes)
        if len(sets) > len(own) + len(inbound):
            self._end(live)

    def _by_live(self, empty: npt.NDArray[np.int32]) -> Iterator[tuple[Live, Int64s]]:
        """(coflow, its empty sets numbered from 0)."""
        sets = np.sort(empty).astype(np.int64)
        at = 0
        while at < len(sets):
            live = self._store.sets.owner[int(sets[at])]
            stop = int(np.searchsorted(sets, live.base + live.num_sets))
            yield live, sets[at:stop] - live.base
            at = stop

    def _end(self, live: Live) -> None:
        spans = played_spans(live.start, live.finish, live.delivered, live.path, *self._scratch)
        del self._live[live.user.number, live.task]
        live.give_back()
        live.user.ended(live.task, Spans(*spans), live.status)


def _links(live: Live, flows: Int64s) -> list[int]:
    links = np.unique(live.path[flows])
    return [int(link) for link in links if link >= 0]
