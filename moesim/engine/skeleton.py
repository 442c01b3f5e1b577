"""Skeleton: what a step is, apart from what it costs; built once and played with many Values.

Tasks, edges and wiring are those of a TaskGraph; of each collective it knows the pair list. Values are what one batch
makes of it: ticks of lanes, bytes of pairs, start-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine.graph import TaskGraph
from moesim.errors import BadInput
from moesim.network.flows import Coflow
from moesim.network.pattern import Pattern, Ports
from moesim.network.port_times import ticks_per_byte
from moesim.units import to_ps

Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Program(NamedTuple):
    """Columns of T tasks, n lanes and E edges as in TaskGraph and Wiring; pattern int32[T]: the pair list of a
    collective, -1 for compute; size_at int64[T]: where the bytes of its flows begin among the values.
    """

    lane_ptr: Int64s
    lane_rank: Int32s
    stream: Int8s
    edge_ptr: Int64s
    edge_from: Int32s
    edge_join: Int8s
    previous: Int32s
    wire_ptr: Int64s
    wire: Int32s
    pattern: Int32s
    size_at: Int64s


class Pairs(NamedTuple):
    """All patterns, one after the other: flow_at, lane_at, port_at int64[P + 1] (lanes count one more each); swept
    bool[P]: one sweep over its ports gives its times. owner_ptr int64[...] from a pattern's own first flow; source,
    destination int32[F]; path int32[F, hops]; slowness float64[L] ps per byte; the rest as in Ports, numbered through
    but for `first`.
    """

    flow_at: Int64s
    lane_at: Int64s
    port_at: Int64s
    swept: npt.NDArray[np.bool_]
    owner_ptr: Int64s
    source: Int32s
    destination: Int32s
    path: Int32s
    slowness: Floats
    part: Int64s
    first: Int32s
    many: Int32s
    into: Int32s
    out: Int32s
    shared_ptr: Int64s
    shared: Int32s
    slow: Floats
    lane_in: Int32s

    @property
    def most_lanes(self) -> int:
        """Of a pattern, or 1."""
        return int(np.diff(self.lane_at).max(initial=1))


@dataclass(frozen=True, eq=False)
class Values:
    """lane_ps int64[n], 0 for collectives; size int64[bytes of all flows of all collectives]; alpha int64[T] ps.

    pattern, size_at: as in Program, where they depend on the batch: which ring or tree is fastest, whose bytes several
    tasks have in common.
    """

    lane_ps: Int64s
    size: Int64s
    alpha: Int64s
    pattern: Int32s | None = None
    size_at: Int64s | None = None


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A graph without values, the pair lists of its collectives, and which of them each task has (-1: compute)."""

    graph: TaskGraph
    patterns: tuple[Pattern, ...]
    pattern: Int32s

    @classmethod
    def of(cls, graph: TaskGraph) -> Skeleton:
        """A graph whose coflows have the pairs that they happen to have. Raises BadInput where links state a latency,
        which only the graph players play.
        """
        if any(coflow.latency is not None for coflow in graph.coflows):
            raise BadInput("links state a latency, which skeletons do not play", way_out="evaluate, or simulate")
        return cls(graph, tuple(Pattern.of(coflow) for coflow in graph.coflows), graph.coflow)

    @cached_property
    def program(self) -> Program:
        """What compiled players read."""
        graph, wiring = self.graph, self.graph.wiring
        return Program(
            graph.lane_ptr, graph.lane_rank, graph.stream, graph.edge_ptr, graph.edge_from, graph.edge_join,
            wiring.previous, wiring.lane_ptr, wiring.lane, self.pattern, self.size_at,
        )  # fmt: skip

    @cached_property
    def size_at(self) -> Int64s:
        """int64[T]: the place of a task's first flow among the bytes of all."""
        flows = np.array([*(pattern.flows for pattern in self.patterns), 0], dtype=np.int64)[self.pattern]
        return np.cumsum(flows) - flows

    @cached_property
    def num_flows(self) -> int:
        """Of all collectives together."""
        return sum(self.patterns[number].flows for number in self.pattern[self.pattern >= 0].tolist())

    def graph_of(self, values: Values) -> TaskGraph:
        """The graph that a graph player plays: with these values, a Coflow for each collective."""
        number = self.pattern if values.pattern is None else values.pattern
        size_at = self.size_at if values.size_at is None else values.size_at
        tasks, coflows = np.flatnonzero(number >= 0), list[Coflow]()
        for task in tasks.tolist():
            one, at = self.patterns[number[task]], int(size_at[task])
            coflows.append(Coflow(one.lanes, one.owner_ptr, one.source, one.destination,
                                  values.size[at : at + one.flows], one.path, values.alpha[task] * 1e-12))  # fmt: skip
        numbers = np.where(number >= 0, np.cumsum(number >= 0) - 1, -1).astype(np.int32)
        seconds: Floats = values.lane_ps.astype(np.float64) * 1e-12
        return replace(self.graph, lane_seconds=seconds, coflow=numbers, coflows=tuple(coflows))

    def pairs(self, capacity: Floats) -> Pairs:
        """capacity float64[L] B/s -> the pair lists with their ports."""
        slowness = ticks_per_byte(capacity)
        found = [pattern.ports(slowness) for pattern in self.patterns]
        return joined(self.patterns, found, slowness)


def values_of(graph: TaskGraph) -> Values:
    """The values that a TaskGraph holds."""
    alpha = np.zeros(graph.num_tasks, dtype=np.int64)
    tasks = np.flatnonzero(graph.coflow >= 0)
    alpha[tasks] = [int(to_ps(graph.coflows[number].alpha)) for number in graph.coflow[tasks].tolist()]
    size = [graph.coflows[number].bytes for number in graph.coflow[tasks].tolist()]
    return Values(graph.lane_ps, np.concatenate([*size, np.zeros(0, np.int64)]), alpha)


def joined(patterns: Sequence[Pattern], found: Sequence[Ports | None], slowness: Floats) -> Pairs:
    """Patterns and their ports (None: not swept), one after the other."""
    ports = [one or _no_ports(pattern) for pattern, one in zip(patterns, found, strict=True)]
    at = {name: np.cumsum([0, *(len(getattr(one, name)) for one in ports)]) for name in ("first", "shared", "slow")}

    def column(name: str, numbers: str | None, dtype: npt.DTypeLike, last: int | None = None) -> Any:
        bases = at[numbers] if numbers else np.zeros(len(ports), np.int64)
        return _one(dtype, [getattr(one, name)[:last] + base for one, base in zip(ports, bases, strict=False)])

    ends = {name: np.array([total[-1]]) for name, total in at.items()}
    return Pairs(
        flow_at=np.cumsum([0, *(pattern.flows for pattern in patterns)]),
        lane_at=np.cumsum([0, *(pattern.lanes + 1 for pattern in patterns)]),
        port_at=at["slow"],
        swept=np.array([one is not None for one in found], dtype=np.bool_),
        owner_ptr=_one(np.int64, [pattern.owner_ptr for pattern in patterns]),
        source=_one(np.int32, [pattern.source for pattern in patterns]),
        destination=_one(np.int32, [pattern.destination for pattern in patterns]),
        path=_wide([pattern.path for pattern in patterns]),
        slowness=slowness,
        part=column("part", "first", np.int64),
        first=column("first", None, np.int32),
        many=column("many", None, np.int32),
        into=column("into", "slow", np.int32),
        out=column("out", "slow", np.int32),
        shared_ptr=np.concatenate((column("shared_ptr", "shared", np.int64, -1), ends["shared"])),
        shared=column("shared", "slow", np.int32),
        slow=column("slow", None, np.float64),
        lane_in=column("lane_in", None, np.int32),
    )


def _no_ports(pattern: Pattern) -> Ports:
    none, zero = np.zeros(0, np.int32), np.zeros(1, np.int64)
    parts = np.zeros(pattern.lanes + 1, np.int64)
    return Ports(parts, none, none, none, none, zero, none, np.zeros(0), none)


def _one(dtype: npt.DTypeLike, arrays: Sequence[npt.NDArray[Any]]) -> Any:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)


def _wide(tables: Sequence[Int32s]) -> Int32s:
    """int32[F, hops] each -> one below the other, -1 padded."""
    hops = max((table.shape[1] for table in tables), default=1)
    padded = [np.pad(table, ((0, 0), (0, hops - table.shape[1])), constant_values=-1) for table in tables]
    return np.ascontiguousarray(np.concatenate([np.zeros((0, hops), np.int32), *padded]).astype(np.int32))
