"""The result of lowering: a TaskGraph, the priced work behind its lanes, and what was sent where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from moesim.engine import GraphBuilder, Join, TaskGraph
from moesim.network import Coflow
from moesim.schedules import COMM, Node
from moesim.step.work import Demand, Floats, Work

After = Sequence[tuple[int, Join]]
HOST = "host"


@dataclass(frozen=True)
class Lowered:
    """graph; work and balanced: family -> seconds float64[lanes]; load int64[moe layers, experts] and rank_load
    int64[moe layers, ranks]: rows; received int64[moe layers, ranks]: rows of one micro-batch, the most of any; sent
    int64[ranks, ranks] (bytes from source to destination over all coflows that carry tokens); demand: (name of tasks,
    family) -> what they have to do on each of all ranks; nodes: the one of the schedule that each task is of; gates
    int64[moe layers]: numbers that each layer's router keeps beyond a linear gate; buffers int64[moe layers, ranks]:
    bytes of a micro-batch's rows in places that a router limits, the most of any, on one of their two ways.
    """

    graph: TaskGraph
    work: Mapping[str, Floats]
    balanced: Mapping[str, Floats]
    load: npt.NDArray[np.int64]
    rank_load: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    received: npt.NDArray[np.int64]
    demand: Mapping[tuple[str, str], Demand]
    nodes: tuple[Node, ...]
    gates: npt.NDArray[np.int64]
    buffers: npt.NDArray[np.int64]

    def with_some_of(self, other: Lowered, ranks: npt.NDArray[np.bool_]) -> Lowered:
        """The same step with what the chosen bool[ranks] do as `other` has it, which differs in prices alone."""
        lanes = ranks[self.graph.lane_rank]
        graph = replace(self.graph, lane_seconds=np.where(lanes, other.graph.lane_seconds, self.graph.lane_seconds))
        demand = {
            key: _chosen(self.demand.get(key), other.demand.get(key), ranks)
            for key in dict.fromkeys((*self.demand, *other.demand))
        }
        work, balanced = (_some_of(*both, lanes) for both in ((self.work, other.work), (self.balanced, other.balanced)))
        return replace(self, graph=graph, work=work, balanced=balanced, demand=demand)

    def play_as(self, draw: Mapping[str, float], *, balanced: bool = False, host: bool = True) -> TaskGraph:
        """The graph with each family's seconds times its factor in `draw`; with rows as they are or balanced.

        Balanced lanes are never longer than real ones: measured kernels may take skewed rows in less time than even
        ones (5 % in some tables), and what is called balanced has to be a lower bound of the step, lane by lane.
        """
        real = _total(self.work, draw, host)
        chosen = np.minimum(real, _total(self.balanced, draw, host)) if balanced else real
        return replace(self.graph, lane_seconds=chosen)

    def balanced_work(self, draw: Mapping[str, float]) -> Mapping[str, Floats]:
        """family -> seconds float64[lanes] of what `play_as(draw, balanced=True)` plays."""
        shorter = _total(self.balanced, draw, True) < _total(self.work, draw, True)
        none = np.zeros(self.graph.num_lanes)
        return {
            family: np.where(shorter, self.balanced.get(family, none), self.work.get(family, none))
            * draw.get(family, 1.0)
            for family in sorted({*self.work, *self.balanced})
        }


def _some_of(
    own: Mapping[str, Floats], others: Mapping[str, Floats], lanes: npt.NDArray[np.bool_]
) -> dict[str, Floats]:  # fmt: skip
    """Of the chosen lanes the others'."""
    none = np.zeros(len(lanes))
    return {name: np.where(lanes, others.get(name, none), own.get(name, none)) for name in sorted({*own, *others})}


def _chosen(own: Demand | None, other: Demand | None, ranks: npt.NDArray[np.bool_]) -> Demand:
    """Of each rank its own kind's."""
    none = Demand(np.zeros(len(ranks)), np.zeros(len(ranks)), frozenset(), frozenset())
    one, two = own or none, other or none
    flops, moved = np.where(ranks, two.flops, one.flops), np.where(ranks, two.bytes, one.bytes)
    return Demand(flops, moved, one.dtypes | two.dtypes, one.kernels | two.kernels)


def _total(families: Mapping[str, Floats], draw: Mapping[str, float], host: bool) -> Floats:
    """family -> float64[lanes] times its factor, added up."""
    chosen = [seconds * draw.get(family, 1.0) for family, seconds in families.items() if host or family != HOST]
    total: Floats = np.sum(chosen, axis=0)
    return total


@dataclass
class Lowering:
    """Collects tasks with their Work while a step is lowered, then concatenates both. parts: the most that a batch is
    cut into, by which those of all micro-batches are numbered through.
    """

    parts: int
    load: npt.NDArray[np.int64]
    rank_load: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    received: npt.NDArray[np.int64]
    gates: npt.NDArray[np.int64]
    buffers: npt.NDArray[np.int64]
    demand: dict[tuple[str, str], Demand] = field(default_factory=dict)
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    works: list[tuple[int, Work, Work]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    @classmethod
    def of(cls, layers: int, experts: int, ranks: int, parts: int) -> Lowering:
        """Empty. layers: those with routed experts."""
        each = (layers, ranks)
        load, rank_load, sent, received, gates, buffers = (
            np.zeros(size, dtype=np.int64) for size in ((layers, experts), each, (ranks, ranks), each, (layers,), each)
        )
        return cls(parts, load, rank_load, sent, received, gates, buffers)

    def compute(
        self, name: str, ranks: npt.NDArray[np.int32], work: Work, after: After, node: Node,
        balanced: Work | None = None,
    ) -> int:  # fmt: skip
        """A compute task on every rank of `ranks`; `balanced` is its work with balanced rows, where that differs."""
        self.works.append((len(ranks), work, balanced or work))
        for family, one in work.demand.items():
            self._note(name, family, ranks, one)
        return self._add(name, ranks, after, node, node.stream, np.broadcast_to(np.asarray(work.total), len(ranks)))

    def _note(self, name: str, family: str, ranks: npt.NDArray[np.int32], one: Demand) -> None:
        """Add what a task has to do to that of all of its name."""
        world = len(self.sent)
        known = self.demand.get((name, family), Demand(np.zeros(world), np.zeros(world), frozenset(), frozenset()))
        known.flops[ranks] += one.flops
        known.bytes[ranks] += one.bytes
        names = (known.dtypes | one.dtypes, known.kernels | one.kernels)
        self.demand[name, family] = Demand(known.flops, known.bytes, *names)

    def transfer(
        self, name: str, ranks: npt.NDArray[np.int32], coflow: Coflow, after: After, node: Node, stream: str = COMM
    ) -> int:  # fmt: skip
        """A coflow between the ranks of `ranks`."""
        self.works.append((len(ranks), Work(), Work()))
        return self._add(name, ranks, after, node, stream, coflow=coflow)

    def meeting(
        self, name: str, ranks: npt.NDArray[np.int32], after: After, node: Node, seconds: Floats | float = 0.0
    ) -> int:  # fmt: skip
        """A stretch of the stream of transfers that is played without its bytes. Without seconds ranks only meet: what
        follows its whole group waits for the last one.
        """
        self.works.append((len(ranks), Work(), Work()))
        return self._add(name, ranks, after, node, COMM, np.broadcast_to(np.asarray(seconds), len(ranks)))

    def _add(
        self, name: str, ranks: npt.NDArray[np.int32], after: After, node: Node, stream: str,
        seconds: Floats | None = None, coflow: Coflow | None = None,
    ) -> int:  # fmt: skip
        self.nodes.append(node)
        part = node.micro_batch * self.parts + node.part.number
        return self.builder.add(
            name, name, stream, ranks, seconds, coflow, after=after, layer=node.layer, micro_batch=part
        )  # fmt: skip

    def finish(self) -> Lowered:
        """The graph and its columns."""
        real, balanced = self._columns(1), self._columns(2)
        return Lowered(
            self.builder.build(), real, balanced, self.load, self.rank_load, self.sent, self.received, self.demand,
            tuple(self.nodes), self.gates, self.buffers,
        )  # fmt: skip

    def _columns(self, which: Literal[1, 2]) -> dict[str, Floats]:
        """family -> float64[lanes], zero where a task has none of it."""
        ends = np.cumsum([entry[0] for entry in self.works])
        columns = {name: np.zeros(int(ends[-1])) for name in sorted({n for w in self.works for n in w[which].seconds})}
        for end, entry in zip(ends.tolist(), self.works, strict=True):
            for family, seconds in entry[which].seconds.items():
                columns[family][end - entry[0] : end] = seconds
        return columns
