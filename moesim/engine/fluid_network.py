"""The fluid network of a World: one simpy process owns it.

A coflow is submitted once and released lane by lane. The process starts all flows of an instant together, runs the
solver ahead to the next event of anybody else, and tells users when lanes are done, bytes have landed, coflows ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simpy

from moesim import streams
from moesim.engine.faults import Fault, FaultTable
from moesim.engine.live import ABORTED, REROUTED, STALLED, Live, Store
from moesim.engine.network_user import NetworkUser
from moesim.engine.sleeper import FOREVER, LATE, Sleeper, next_event
from moesim.engine.timeline import Transfers
from moesim.errors import BadInput
from moesim.network import Coflow
from moesim.network.fluid_watch import Ran, WatchedNet
from moesim.network.narrow import narrowed
from moesim.network.port_times import Spans, played_spans
from moesim.units import LAST_TICK, beyond_clock, show_bandwidth, to_ps

MAX_HOPS = 16  # links on a path without detours, kernel ports included
TICKET = streams.key("detour")
Int64s = npt.NDArray[np.int64]


class Verdict(NamedTuple):
    """Flows int64[...] that cross dead links: who waits, who is lost, who goes another way."""

    stalled: Int64s
    aborted: Int64s
    rerouted: Int64s


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
        can_fill: npt.NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        self._env, self._faults, self._barrier, self._capacity = env, faults, barrier, capacity
        self.num_links, self._link_name = len(capacity), link_name
        self._solved = np.arange(len(capacity)) if can_fill is None else np.flatnonzero(can_fill)
        self._number = np.full(len(capacity), -1, dtype=np.int32)
        self._number[self._solved] = np.arange(len(self._solved))
        self._net = WatchedNet(capacity[self._solved], window)
        self._live: dict[tuple[int, int], Live] = {}
        self._store = Store()
        self._starts: list[tuple[int, int, Live, Int64s]] = []
        self._started = 0
        self._landings: list[tuple[int, int]] = []  # tick at which a set's last byte lands, the set
        self._ran: Ran | None = None
        self._dead: dict[int, Fault] = {}
        self._dead_links: frozenset[int] = frozenset()
        self._is_dead = np.zeros(len(capacity) + 1, dtype=np.bool_)  # the last is "no link"
        self._turns: list[tuple[Live, int, list[int]]] = []  # detours that are not taken yet
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
        full = np.zeros(self.num_links)
        full[self._solved] = self._net.saturated
        return full

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
        live.solved = narrowed(coflow.path, self._number) if len(self._solved) < self.num_links else None
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
        change = self._faults.links.next
        alarms += [change] if self._live and change is not None else []
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
        if not self._starts or self._starts[0][0] > now:
            return
        empty: list[int] = []
        while self._starts and self._starts[0][0] <= now:
            _, _, live, lanes = heapq.heappop(self._starts)
            flows = live.flows_of(lanes)
            live.start[flows] = now
            lost = self._set_out(live, flows, now)
            live.unstarted -= len(lanes)
            empty += self._count_out(live.base + lanes)
            if live.unstarted == 0:
                empty += self._count_out(live.base + np.arange(live.lanes, live.num_sets))
            empty += self._count_out(live.members(lost).ravel().astype(np.int64))
        self._tell(np.array(empty, dtype=np.int32), now)

    def _set_out(self, live: Live, flows: Int64s, now: int) -> Int64s:
        """Flows start now -> those that are lost at once."""
        crossing = live.crossing(flows, self._is_dead) if self._dead else flows[:0]
        if not len(crossing):
            self._enter(live, flows, now)
            return crossing
        verdict = self._divert(live, crossing)
        self._turn()
        if len(verdict.stalled):
            live.mark(STALLED)
        if len(verdict.aborted):
            live.lose(verdict.aborted, now)
        self._enter(live, np.setdiff1d(flows, verdict.aborted), now)
        return verdict.aborted

    def _enter(self, live: Live, flows: Int64s, now: int) -> None:
        """Flows set out, or go on by another path."""
        if len(flows):
            self._forget_ahead()
            path = live.path if live.solved is None else live.solved
            live.number[flows] = self._net.add(
                now, path[flows], live.size[flows], live.members(flows), live.first + flows
            )

    def _divert(self, live: Live, flows: Int64s) -> Verdict:
        """What becomes of flows whose paths cross dead links: some get new paths, of which the network hears later."""
        found: dict[str, list[int]] = {STALLED: [], ABORTED: [], REROUTED: []}
        ends = (live.coflow.source[flows], live.coflow.destination[flows])
        tickets = streams.hash_ints(TICKET, *ends, flows).tolist()
        for flow, ticket in zip(flows.tolist(), tickets, strict=True):
            links = live.wire(flow)
            way = self._way(links, ticket)
            found[REROUTED if isinstance(way, list) else way].append(flow)
            if isinstance(way, list):
                self._turns.append((live, flow, way))
        return Verdict(*(np.array(found[name], dtype=np.int64) for name in (STALLED, ABORTED, REROUTED)))

    def _way(self, links: list[int], ticket: int) -> list[int] | str:
        """New links of a flow that crosses dead ones; or STALLED or ABORTED. Detours may lead over other detours."""
        tried: set[int] = set()
        while hit := [link for link in links if link in self._dead]:
            if any(self._dead[link].then == "abort" for link in hit):
                return ABORTED
            turns = [link for link in hit if self._dead[link].then == "reroute" and link not in tried]
            if not turns:
                return STALLED
            tried.add(turns[0])
            links = self._dead[turns[0]].way(links, turns[0], self._dead_links, ticket) or links
        return links

    def _suffer(self, live: Live, now: int) -> None:
        """A coflow under way, when links die or come back."""
        crossing = live.crossing(live.under_way(), self._is_dead)
        if not len(crossing):
            return
        verdict = self._divert(live, crossing)
        if len(verdict.stalled):
            live.mark(STALLED)
        moved = np.concatenate((verdict.rerouted, verdict.aborted))
        if len(moved):
            left = np.ceil(self._take_back(live, moved, now)).astype(np.int64)
            left[: len(verdict.rerouted)] = np.maximum(left[: len(verdict.rerouted)], 1)
            live.cut(moved, left, now)
        self._turn()
        self._enter(live, verdict.rerouted, now)
        self._abort(live, verdict.aborted, now)

    def _turn(self) -> None:
        for live, flow, links in self._turns:
            live.take_detour(flow, links)
        self._turns.clear()

    def _abort(self, live: Live, flows: Int64s, now: int) -> None:
        """Nothing more of these flows will arrive; the others go on."""
        if len(flows):
            live.lose(flows, now)
            self._tell(np.array(self._count_out(live.members(flows).ravel().astype(np.int64)), dtype=np.int32), now)

    def _take_back(self, live: Live, flows: Int64s, now: int) -> npt.NDArray[np.float64]:
        self._forget_ahead()
        return self._net.take_back(now, live.number[flows])

    def _forget_ahead(self) -> None:
        """Rates will change: what was run ahead keeps the sets that are empty, but not when the next flow ends."""
        if self._ran is not None:
            self._ran = self._ran if len(self._ran.empty) else None

    def _strike(self, now: int) -> None:
        """Faults that begin or end by now."""
        struck = self._faults.links.advance(now)
        if not struck:
            return
        self._forget_ahead()
        before = dict(self._dead)
        for link, factor in struck.items():
            self._net.set_capacity(now, link, float(self._capacity[link]) * factor)
            killer = self._faults.links.killer(link)
            self._dead.pop(link, None)
            self._is_dead[link] = killer is not None
            if killer is not None:
                self._dead[link] = killer
        if self._dead != before:
            self._dead_links = frozenset(self._dead)
            for live in list(self._live.values()):
                self._suffer(live, now)

    def _count_out(self, sets: Int64s) -> list[int]:
        """Take one (or as many as a set occurs) from each set -> those that became empty."""
        left = self._store.sets.values
        np.subtract.at(left, sets, 1)
        empty = sets[left[sets] == 0]
        return np.unique(empty).tolist() if len(empty) else []

    def _tell(self, empty: npt.NDArray[np.int32], now: int) -> None:
        """Sets became empty: their users hear of it."""
        for live, sets in self._by_live(empty):
            if live.latency is None:
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
        changed = live.carried if live.status in (REROUTED, STALLED, ABORTED) else None
        flows = (live.start, live.finish, live.size, live.path) if changed is None else changed.spans
        spans = played_spans(*flows, *self._scratch)
        del self._live[live.user.number, live.task]
        live.give_back()
        live.user.ended(live.task, Spans(*spans), live.status, changed)


def _links(live: Live, flows: Int64s) -> list[int]:
    links = np.unique(live.path[flows])
    return [int(link) for link in links if link >= 0]
