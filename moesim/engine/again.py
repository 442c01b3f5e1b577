"""Again: a TaskGraph whose lanes take other seconds, or whose links are faster or slower, played in the compiled pass.

Collectives between the same lanes by the same ways share one pair list, so that what depends on links alone is worked
out once and not for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.engine.graph import TaskGraph
from moesim.engine.passes import State, play
from moesim.engine.skeleton import Pairs, Skeleton, Values, values_of
from moesim.network.flows import Coflow
from moesim.network.pattern import Pattern

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Again:
    """The structure and the values of a graph."""

    skeleton: Skeleton
    values: Values

    @classmethod
    def of(cls, graph: TaskGraph) -> Again:
        """Raises BadInput where links state a latency, which skeletons do not play."""
        plain, shared = Skeleton.of(graph), list[Shared]()
        joined = [_join(coflow, shared) for coflow in graph.coflows]
        patterns = (*(one.pattern for one in shared), *plain.patterns)
        tasks = np.flatnonzero(graph.coflow >= 0)
        number, size = np.full(graph.num_tasks, -1, dtype=np.int32), [np.zeros(0, dtype=np.int64)]
        for task, index in zip(tasks.tolist(), graph.coflow[tasks].tolist(), strict=True):
            coflow, common = graph.coflows[index], joined[index]
            number[task] = len(shared) + index if common < 0 else common
            size.append(coflow.bytes if common < 0 else shared[common].sizes(coflow))
        used, number[tasks] = np.unique(number[tasks], return_inverse=True)
        skeleton = Skeleton(
            replace(graph, coflow=number, coflows=()), tuple(patterns[one] for one in used.tolist()), number
        )
        return cls(skeleton, replace(values_of(graph), size=np.concatenate(size)))

    def ps(self, lane_ps: Int64s, links: Pairs) -> int:
        """lane_ps int64[n], links: `skeleton.pairs` of a capacity -> the end of the last task. Raises as `play`."""
        graph = self.skeleton.graph
        zero = State.at_zero(graph.num_ranks, len(graph.streams))
        return play(self.skeleton, replace(self.values, lane_ps=lane_ps), links, zero)[1]


@dataclass
class Shared:
    """Pairs of lanes that some collectives have in common; path int32[R * R, hops] of each, -2 where none is known."""

    lanes: int
    path: Int32s

    @classmethod
    def of(cls, coflow: Coflow) -> Shared:
        """None yet."""
        return cls(coflow.lanes, np.full((coflow.lanes**2, coflow.path.shape[1]), -2, dtype=np.int32))

    def takes(self, coflow: Coflow, pair: Int64s) -> bool:
        """Whether a collective's flows go by the ways that are known; if so, those that are new are known as well."""
        if coflow.lanes != self.lanes or coflow.path.shape[1] != self.path.shape[1]:
            return False
        known = self.path[pair]
        if np.any((known[:, 0] != -2) & np.any(known != coflow.path, axis=1)):
            return False
        self.path[pair] = coflow.path
        return True

    @cached_property
    def pairs(self) -> Int64s:
        """int64[F], by source; once all collectives have been taken."""
        return np.flatnonzero(self.path[:, 0] != -2)

    @property
    def pattern(self) -> Pattern:
        """All pairs that any of them has."""
        source, destination = np.divmod(self.pairs, self.lanes)
        ptr = np.searchsorted(source, np.arange(self.lanes + 1)).astype(np.int64)
        return Pattern(self.lanes, ptr, source.astype(np.int32), destination.astype(np.int32), self.path[self.pairs])

    def sizes(self, coflow: Coflow) -> Int64s:
        """int64[F] bytes of all pairs."""
        sent = np.zeros(self.lanes**2, dtype=np.int64)
        sent[_pair(coflow)] = coflow.bytes
        return sent[self.pairs]


def _pair(coflow: Coflow) -> Int64s:
    return coflow.source.astype(np.int64) * coflow.lanes + coflow.destination


def _join(coflow: Coflow, shared: list[Shared]) -> int:
    """The one that takes the collective, which may be new; -1: lanes release for others, or send each other twice."""
    pair = _pair(coflow)
    owner = np.repeat(np.arange(coflow.lanes), np.diff(coflow.owner_ptr))
    if np.any(owner != coflow.source) or np.bincount(pair, minlength=1).max() > 1:
        return -1
    for number, one in enumerate(shared):
        if one.takes(coflow, pair):
            return number
    shared.append(Shared.of(coflow))
    return len(shared) - 1 if shared[-1].takes(coflow, pair) else -1
