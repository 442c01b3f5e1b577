"""The pass where what runs beside what matters: the playing of `passes` with lanes that slow each other on a rank.

Starts and ends depend on what else runs then, so lanes are played event by event, compiled; collectives take their
port-load time, as in `passes`. To the tick it is what `evaluate` does with a Speed, by the players of a World.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.engine import beside_kernel as kernel
from moesim.engine import machine
from moesim.engine.machine_kernel import IDLE
from moesim.engine.machine_kernel import State as Blank
from moesim.engine.passes import State
from moesim.engine.skeleton import Pairs, Skeleton, Values
from moesim.engine.speed import Speed
from moesim.errors import Deadlock
from moesim.units import LAST_TICK, beyond_clock

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Beside:
    """A skeleton on links, with classes that slow each other; built once and played with many Values."""

    skeleton: Skeleton
    pairs: Pairs
    ends: kernel.Ends
    program: kernel.Program
    blank: Blank

    @classmethod
    def of(cls, skeleton: Skeleton, pairs: Pairs, speed: Speed) -> Beside:
        """Raises BadInput where the class of a collective is to be slowed."""
        graph = skeleton.graph
        speed.check(tuple({graph.classes[number] for number in graph.task_class[skeleton.pattern >= 0].tolist()}))
        return cls(skeleton, pairs, _ends(pairs), machine.program_of(graph, speed), machine.state_of(graph))

    def play(self, values: Values, state: State) -> tuple[State, int]:
        """Everything once, from `state` on -> the State afterwards and the last tick of any task.

        Before its clock a stream is idle, so let a pattern end where the streams of a rank meet. Raises as `play`.
        """
        graph, plain = self.skeleton.graph, self.skeleton.program
        pattern, size_at = (
            plain.pattern if values.pattern is None else values.pattern,
            plain.size_at if values.size_at is None else values.size_at,
        )
        moving = self.blank._replace(**{name: column.copy() for name, column in self.blank._asdict().items()})
        program = self.program._replace(duration=values.lane_ps)
        self._carry_on(moving.ready, state)
        exchanges = kernel.Exchanges(pattern, size_at, values.size, values.alpha, self.ends)
        bad = kernel.run(program, exchanges, self.pairs, moving, self._scratch)
        if bad >= 0:
            raise Deadlock(f"{graph.describe(int(bad))} sends bytes over a link without capacity")
        if moving.counts[kernel.UNFINISHED] or (end := int(moving.task_end.max(initial=0))) >= LAST_TICK:
            raise beyond_clock("the step ends too late")
        return State(self._clock(moving.end, state.clock), state.arrived), end

    def _carry_on(self, ready: Int64s, state: State) -> None:
        """Into `ready` int64[n]: before which tick each lane may not start, whatever it waits for."""
        first, alone, _ = self._edges
        ready[first[0]] = state.clock[first[1:]]
        ready[alone[0]] = np.maximum(ready[alone[0]], state.arrived[alone[1]])

    def _clock(self, end: Int64s, before: Int64s) -> Int64s:
        clock, last = before.copy(), self._edges[2]
        clock[last[1:]] = end[last[0]]
        return clock

    @cached_property
    def _edges(self) -> tuple[tuple[npt.NDArray[Any], ...], ...]:
        """Lanes, their ranks and streams: the first on a stream, those of tasks without edges, the last on a stream."""
        graph = self.skeleton.graph
        alone = (np.diff(graph.edge_ptr) == 0)[graph.lane_task]
        chosen = (graph.wiring.previous < 0, alone, self.program.following == IDLE)
        lanes = [np.flatnonzero(one) for one in chosen]
        return tuple((one, graph.lane_rank[one], graph.stream[graph.lane_task[one]]) for one in lanes)

    @cached_property
    def _scratch(self) -> kernel.Scratch:
        """Kept from play to play, which leave it blank or begin with that."""
        pairs, lanes = self.pairs, self.skeleton.graph.num_lanes
        slots = max(self.skeleton.graph.num_ranks, 1) * max(len(self.skeleton.graph.streams), 1)
        flows, most = int(np.diff(pairs.flow_at).max(initial=0)), pairs.most_lanes
        tasks, words = self.skeleton.graph.num_tasks, -(-most // 64)
        return kernel.Scratch(
            coming=np.full(slots, IDLE, dtype=np.int32), due=np.empty(slots, np.int32), many=np.zeros(1, np.int64),
            known=np.zeros(lanes, np.bool_),
            silent=np.zeros(tasks, np.int64), partners=np.zeros((lanes, words), np.uint64),
            partnered=np.zeros(tasks, np.bool_), missing=np.zeros(words, np.uint64), done=np.empty(most, np.int64),
            landed=np.empty(most, np.int64), order=np.empty(most, np.int64), load=np.zeros(len(pairs.slow), np.int64),
            landings=np.zeros((2, len(pairs.slow))), links=np.zeros((3, len(pairs.slowness)), np.int64),
            begin=np.zeros(flows, np.int64), flows=np.empty(flows, np.int32), now=np.zeros(1, np.int64),
        )  # fmt: skip


def _ends(pairs: Pairs) -> kernel.Ends:
    """The flows of every lane, pattern after pattern."""
    owner, sent, got = (list[npt.NDArray[np.int64]]() for _ in range(3))
    sent_ptr, got_ptr = list[Int64s](), list[Int64s]()
    for pattern in range(len(pairs.flow_at) - 1):
        flows = slice(int(pairs.flow_at[pattern]), int(pairs.flow_at[pattern + 1]))
        ptr = pairs.owner_ptr[pairs.lane_at[pattern] : pairs.lane_at[pattern + 1]]
        owner.append(np.repeat(np.arange(len(ptr) - 1), np.diff(ptr)))
        for lane, order, where in ((pairs.source, sent, sent_ptr), (pairs.destination, got, got_ptr)):
            order.append(np.argsort(lane[flows], kind="stable"))
            where.append(flows.start + np.searchsorted(lane[flows][order[-1]], np.arange(len(ptr))))
    return kernel.Ends(*(np.concatenate([np.zeros(0, np.int64), *one]).astype(np.int64)
                         for one in (owner, sent_ptr, sent, got_ptr, got)))  # fmt: skip
