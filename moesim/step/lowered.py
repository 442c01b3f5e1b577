"""The result of lowering: a TaskGraph, the priced work behind its lanes, and what was sent where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from moesim.engine import GraphBuilder, Join, TaskGraph
from moesim.network import Coflow
from moesim.step.work import Demand, Floats, Work

After = Sequence[tuple[int, Join]]
HOST = "host"


@dataclass(frozen=True)
class Lowered:
    """graph; work and balanced: family -> seconds float64[lanes]; load int64[moe layers, experts] and rank_load
    int64[moe layers, ranks]: rows; received int64[moe layers, ranks]: rows of one micro-batch, the most of any; sent
    int64[ranks, ranks] (bytes from source to destination over all coflows that carry tokens); demand: (name of tasks,
    family) -> what they have to do on each of all ranks.
    """

    graph: TaskGraph
    work: Mapping[str, Floats]
    balanced: Mapping[str, Floats]
    load: npt.NDArray[np.int64]
    rank_load: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    received: npt.NDArray[np.int64]
    demand: Mapping[tuple[str, str], Demand]

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


def _total(families: Mapping[str, Floats], draw: Mapping[str, float], host: bool) -> Floats:
    """family -> float64[lanes] times its factor, added up."""
    chosen = [seconds * draw.get(family, 1.0) for family, seconds in families.items() if host or family != HOST]
    total: Floats = np.sum(chosen, axis=0)
    return total


@dataclass
class Recorder:
    """Collects tasks with their Work while a step is lowered, then concatenates both."""

    load: npt.NDArray[np.int64]
    rank_load: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    received: npt.NDArray[np.int64]
    demand: dict[tuple[str, str], Demand] = field(default_factory=dict)
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    works: list[tuple[int, Work, Work]] = field(default_factory=list)

    def compute(
        self, name: str, ranks: npt.NDArray[np.int32], work: Work, after: After, layer: int, micro_batch: int,
        balanced: Work | None = None,
    ) -> int:  # fmt: skip
        """A compute task on every rank of `ranks`; `balanced` is its work with balanced rows, where that differs."""
        self.works.append((len(ranks), work, balanced or work))
        for family, one in work.demand.items():
            self._note(name, family, ranks, one)
        seconds = np.broadcast_to(np.asarray(work.total), len(ranks))
        return self.builder.add(
            name, name, "compute", ranks, seconds, after=after, layer=layer, micro_batch=micro_batch
        )

    def _note(self, name: str, family: str, ranks: npt.NDArray[np.int32], one: Demand) -> None:
        """Add what a task has to do to that of all of its name."""
        world = len(self.sent)
        known = self.demand.get((name, family), Demand(np.zeros(world), np.zeros(world), frozenset(), frozenset()))
        known.flops[ranks] += one.flops
        known.bytes[ranks] += one.bytes
        names = (known.dtypes | one.dtypes, known.kernels | one.kernels)
        self.demand[name, family] = Demand(known.flops, known.bytes, *names)

    def transfer(
        self, name: str, ranks: npt.NDArray[np.int32], coflow: Coflow, after: After, layer: int, micro_batch: int
    ) -> int:
        """A coflow between the ranks of `ranks`."""
        self.works.append((len(ranks), Work(), Work()))
        return self.builder.add(
            name, name, "comm", ranks, coflow=coflow, after=after, layer=layer, micro_batch=micro_batch
        )

    def finish(self) -> Lowered:
        """The graph and its columns."""
        real, balanced = self._columns(1), self._columns(2)
        rows = (self.load, self.rank_load)
        return Lowered(self.builder.build(), real, balanced, *rows, self.sent, self.received, self.demand)

    def _columns(self, which: Literal[1, 2]) -> dict[str, Floats]:
        """family -> float64[lanes], zero where a task has none of it."""
        ends = np.cumsum([entry[0] for entry in self.works])
        columns = {name: np.zeros(int(ends[-1])) for name in sorted({n for w in self.works for n in w[which].seconds})}
        for end, entry in zip(ends.tolist(), self.works, strict=True):
            for family, seconds in entry[which].seconds.items():
                columns[family][end - entry[0] : end] = seconds
        return columns
