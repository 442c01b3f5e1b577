"""World: one clock and one network that any number of graphs share.

The clock is simpy's, in integer picoseconds. A stall that no fault explains is a deadlock, reported with its waiters.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import simpy

from moesim.engine.faults import Fault, FaultTable
from moesim.engine.fluid_network import FluidNetwork
from moesim.engine.graph import TaskGraph
from moesim.engine.integrity import check_integrity
from moesim.engine.network_user import Network
from moesim.engine.player import Player
from moesim.engine.port_network import PortNetwork
from moesim.engine.sleeper import wait
from moesim.engine.speed import Speed
from moesim.errors import BadInput, Deadlock, unknown_name

LEVELS = ("fluid", "none", "port_load")
SHOWN_WAITERS = 8


class World:
    """capacity float64[L] B/s. network "fluid" (max-min; `window` trades exactness for speed), "port_load" or "none".

    barrier: the bytes of a coflow start when its last lane has released. link_name: L names, for messages. Graphs use
    the same rank numbers for the same devices, but each has streams of its own. can_fill bool[L]: where it is known of
    all flows to come, which links they can fill (`network.narrow`): only those are solved for. Raises BadInput.
    """

    def __init__(
        self,
        capacity: npt.NDArray[np.float64],
        *,
        network: str = "fluid",
        window: float = 0.0,
        faults: Iterable[Fault] = (),
        barrier: bool = False,
        link_name: Sequence[str] = (),
        can_fill: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.env = simpy.Environment()
        self._link_name = link_name or [str(link) for link in range(len(capacity))]
        self._faults = FaultTable(faults, len(capacity))
        self._network = self._make_network(np.asarray(capacity, dtype=np.float64), network, window, barrier, can_fill)
        self._players: dict[int, Player] = {}
        self._count = 0
        self._rank_factors = self._faults.ranks.advance(0)
        self._ranks_fail = any(fault.rank is not None for fault in self._faults.rows)
        if self._ranks_fail:
            self.env.process(self._strike_ranks())

    def _make_network(
        self, capacity: npt.NDArray[np.float64], network: str, window: float, barrier: bool,
        can_fill: npt.NDArray[np.bool_] | None,
    ) -> Network:  # fmt: skip
        if network not in LEVELS:
            raise unknown_name("network level", network, LEVELS)
        if np.any(~np.isfinite(capacity)) or np.any(capacity < 0):
            raise BadInput("a link capacity is negative, NaN or infinite")
        if network == "fluid":
            return FluidNetwork(self.env, capacity, self._faults, barrier, window, self._link_name, can_fill)
        if any(fault.link is not None for fault in self._faults.rows):
            raise BadInput("a fault on a link needs the fluid network", way_out="network='fluid'")
        return PortNetwork(self.env, capacity, network, barrier)

    @property
    def now(self) -> int:
        """The current tick."""
        return int(self.env.now)

    def submit(self, graph: TaskGraph, at: int | None = None, speed: Speed | None = None) -> simpy.Event:
        """Play a graph from tick `at` (None: now) -> an event that fires with its Timeline. Raises BadInput."""
        check_integrity(graph)
        start = self.now if at is None else at
        if start < self.now:
            raise BadInput(f"a graph is submitted for tick {start}, it is {self.now} already")
        if speed is not None:
            speed.check(tuple(graph.classes[class_] for class_ in np.unique(graph.task_class[graph.coflow >= 0])))
        player = Player(self.env, self._count, graph, start, self._network, speed, self._ranks_fail)
        player.set_speeds(self._rank_factors)
        self._players[player.number] = player
        player.done.callbacks.append(lambda _: self._players.pop(player.number))
        self._count += 1
        return player.done

    def run(self) -> None:
        """Until nothing happens any more. Raises Deadlock, with who waits for what.

        A graph that stands still because of a fault gets its event too, with an incomplete Timeline.
        """
        while True:
            self.env.run()
            if not self._players:
                return
            for player in list(self._players.values()):
                player.stand_still(self._explain(player))

    def _explain(self, player: Player) -> tuple[str, ...]:
        """The faults for which a graph stands still. Raises Deadlock where there is none."""
        dead = self._faults.links
        standing = self._network.standing(player)
        unexplained = [task for task, links in standing if not any(dead.killer(link) for link in links)]
        halted = [rank for rank in player.machine.halted_ranks if self._rank_factors.get(rank) == 0]
        by_link = [str(fault) for _, links in standing for link in links if (fault := dead.killer(link))]
        by_rank = [str(f) for f in self._faults.rows if f.rank in halted and f.factor == 0 and f.active(self.now)]
        reasons = tuple(dict.fromkeys(by_link + by_rank))
        if unexplained or not reasons:
            waiters = player.waiting(self._link_name)
            more = f" and {len(waiters) - SHOWN_WAITERS} more" if len(waiters) > SHOWN_WAITERS else ""
            raise Deadlock(
                f"simulated deadlock at {self.now} ps: {'; '.join(waiters[:SHOWN_WAITERS])}{more}",
                way_out="give the links capacity, or state the outage as a fault",
            )
        return reasons

    def _strike_ranks(self) -> Generator[simpy.Event, None, None]:
        while (tick := self._faults.ranks.next) is not None:
            yield wait(self.env, tick - self.now)
            struck = self._faults.ranks.advance(tick)
            self._rank_factors |= struck
            for player in self._players.values():
                player.set_speeds(struck)
