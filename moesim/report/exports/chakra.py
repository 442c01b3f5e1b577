"""Chakra execution traces of a step, a file a rank (MLCommons Chakra's et_def.proto, which ASTRA-sim's feeder reads).

A kernel is a COMP_NODE that follows what its rank did before it. A collective is what it is made of: a COMM_SEND_NODE
for every flow on the rank that it leaves, a COMM_RECV_NODE where it lands, so that uneven all-to-alls stay uneven. A
flow of another rank's rows (a relay inside the node) leaves once those have come. What a collective's start-up takes
is a kernel before its sends.

The format counts whole microseconds: durations of a stream are rounded so that their sum is never off by one, and
`duration_ps` has each of them exactly. A rank goes on when its own sends and receives are done; barriers that move no
bytes are not in the trace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np

from moesim.engine import Join, TaskGraph
from moesim.network import Coflow
from moesim.report.exports.again import played_again
from moesim.report.exports.protobuf import delimited, integer, lengthy, packed, text
from moesim.report.stored import StoredRun
from moesim.units import to_ps
from moesim.version import __version__

SCHEMA: Final = "0.0.4"
MICROSECOND: Final = 1_000_000  # ps
Nodes = Sequence[int]  # numbers of nodes of a rank's trace


class Type(IntEnum):
    """Chakra's NodeType, those that a step has."""

    COMP = 4
    SEND = 5
    RECV = 6


class Value(IntEnum):
    """Fields of Chakra's AttributeProto."""

    INT32 = 7
    INT64 = 9
    UINT64 = 13
    BOOL = 27
    STRING = 29


def made(run: StoredRun) -> Mapping[str, bytes]:
    """chakra.RANK.et -> its bytes. Raises BadInput where the scenario does not play as it did."""
    graph = played_again(run).graph
    traces = _traces(graph)
    head = _header(str(run.document["provenance"].get("scenario", "")))
    return {f"chakra.{rank}.et": head + bytes(trace.content) for rank, trace in enumerate(traces)}


@dataclass
class Trace:
    """A rank's nodes, written as they come. behind: ps by stream that its microseconds have still to make up for."""

    content: bytearray = field(default_factory=bytearray)
    number: int = 0
    behind: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, kind: Type, after: Nodes, attributes: bytes, micros: int = 0) -> int:
        """The number of the new node."""
        self.number += 1
        body = integer(1, self.number) + text(2, name) + integer(3, kind) + packed(5, after) + integer(7, micros)
        self.content += delimited(body + attributes)
        return self.number

    def kernel(self, name: str, stream: int, ps: int, after: Nodes) -> int:
        """Something that takes time."""
        micros = (self.behind[stream] + ps + MICROSECOND // 2) // MICROSECOND
        self.behind[stream] += ps - micros * MICROSECOND
        attributes = _said("is_cpu_op", Value.BOOL, 0) + _said("num_ops", Value.INT64, 0)
        return self.add(name, Type.COMP, after, attributes + _said("duration_ps", Value.UINT64, ps), micros)

    def message(self, name: str, kind: Type, peer: int, size: int, tag: int, after: Nodes) -> int:
        """What one rank sends and the other receives under one tag."""
        place = "comm_dst" if kind is Type.SEND else "comm_src"
        attributes = _said("is_cpu_op", Value.BOOL, 0) + _said("comm_size", Value.INT64, size)
        attributes += _said(place, Value.INT32, peer) + _said("comm_tag", Value.INT32, tag)
        return self.add(name, kind, after, attributes)


def _traces(graph: TaskGraph) -> list[Trace]:
    """Of all ranks. ends: by lane, the nodes that are the last of it."""
    traces = [Trace() for _ in range(graph.num_ranks)]
    tags: dict[tuple[int, int], int] = defaultdict(int)
    ends: list[Nodes] = [()] * graph.num_lanes
    for task in range(graph.num_tasks):
        lanes = range(graph.lanes(task).start, graph.lanes(task).stop)
        after = [sorted({node for before in _before(graph, task, lane) for node in ends[before]}) for lane in lanes]
        if graph.coflow[task] >= 0:
            ends[lanes.start : lanes.stop] = _exchanged(graph, task, traces, tags, after)
        else:
            for lane, nodes in zip(lanes, after, strict=True):
                trace, ps = traces[graph.lane_rank[lane]], int(graph.lane_ps[lane])
                ends[lane] = (trace.kernel(_name(graph, task), int(graph.stream[task]), ps, nodes),) if ps else nodes
    return traces


def _before(graph: TaskGraph, task: int, lane: int) -> Iterator[int]:
    """Lanes of the same rank that a lane follows: the one before on its stream, and those of edges."""
    wiring, place = graph.wiring, lane - int(graph.lane_ptr[task])
    found = [int(wiring.previous[lane])]
    for edge in range(int(graph.edge_ptr[task]), int(graph.edge_ptr[task + 1])):
        if graph.edge_join[edge] == Join.GROUP:
            earlier = graph.lanes(int(graph.edge_from[edge]))
            same = np.flatnonzero(graph.lane_rank[earlier] == graph.lane_rank[lane])
            found += (earlier.start + same).tolist()
        else:
            found.append(int(wiring.lane[wiring.lane_ptr[edge] + place]))
    return (one for one in found if one >= 0)


def _exchanged(
    graph: TaskGraph, task: int, traces: Sequence[Trace], tags: dict[tuple[int, int], int], after: Sequence[Nodes]
) -> list[Nodes]:  # fmt: skip
    """The ends of a collective's lanes; after: what each of them follows."""
    coflow, name = graph.coflows[graph.coflow[task]], _name(graph, task)
    ranks, stream = graph.lane_rank[graph.lanes(task)].tolist(), int(graph.stream[task])
    startup = int(to_ps(coflow.alpha))
    flows = _flows(coflow)
    senders = {source for _, source, _, _ in flows}
    ready: list[Nodes] = [
        (traces[ranks[lane]].kernel(f"{name} start-up", stream, startup, nodes),)
        if startup and lane in senders else nodes for lane, nodes in enumerate(after)
    ]  # fmt: skip
    ends: list[list[int]] = [[] for _ in ranks]
    came: dict[tuple[int, int], list[int]] = defaultdict(list)  # (whose rows, where) -> receives
    for owner, source, target, size in flows:
        pair = (ranks[source], ranks[target])
        tags[pair] += 1
        first = ready[source] if owner == source else [*ready[source], *came[owner, source]]
        ends[source].append(traces[pair[0]].message(name, Type.SEND, pair[1], size, tags[pair], first))
        node = traces[pair[1]].message(name, Type.RECV, pair[0], size, tags[pair], after[target])
        ends[target].append(node)
        came[owner, target].append(node)
    return [own or nodes for own, nodes in zip(ends, ready, strict=True)]


def _flows(coflow: Coflow) -> list[tuple[int, int, int, int]]:
    """(owner, source, destination, bytes) by lanes, those that leave their GPU; relays after what they pass on."""
    owner = np.repeat(np.arange(coflow.lanes), np.diff(coflow.owner_ptr))
    moved = np.flatnonzero((coflow.bytes > 0) & (coflow.source != coflow.destination))
    order = moved[np.argsort(owner[moved] != coflow.source[moved], kind="stable")]
    columns = (owner, coflow.source, coflow.destination, coflow.bytes)
    return list(zip(*(column[order].tolist() for column in columns), strict=True))


def _name(graph: TaskGraph, task: int) -> str:
    """With its layer, where it has one."""
    return graph.name[task] + (f" L{graph.layer[task]}" if graph.layer[task] >= 0 else "")


def _said(name: str, kind: Value, value: int | str) -> bytes:
    """A node's attribute."""
    held = text(kind, value) if isinstance(value, str) else integer(kind, value)
    return lengthy(10, text(1, name) + held)


def _header(scenario: str) -> bytes:
    """GlobalMetadata, the first message of a trace."""
    notes = {"made_by": f"moesim {__version__}", "scenario": scenario}
    attributes = b"".join(lengthy(2, text(1, name) + text(Value.STRING, said)) for name, said in notes.items())
    return delimited(text(1, SCHEMA) + attributes)
