"""What a rank of the pipeline does in one slot, as a skeleton: a pass of a stage, or two passes at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from moesim.engine import GraphBuilder, Join, Pairs, Skeleton, State, TaskGraph, Values, timed
from moesim.network import Coflow
from moesim.network.pattern import Pattern
from moesim.schedules import COMM, COMPUTE, Verb, Way
from moesim.schedules.pipelines import Pass
from moesim.step.chain import NOTIFY
from moesim.step.exchanges import Exchange
from moesim.step.lowered import Lowered
from moesim.training.chunk import written_order
from moesim.units import to_ps

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
STREAMS: Final = (COMPUTE, COMM)
EXCHANGES: Final = ("dispatch", "combine", "combine_backward", "dispatch_backward")
GEMM: Final = "gemm"
What = TypeVar("What")
BACK: Final = {
    (Verb.DISPATCH, True): False, (Verb.COMBINE, True): True, (Verb.COMBINE, False): False, (Verb.DISPATCH, False): True
}  # fmt: skip
WAYS: Final = {
    Pass.F: (Way.FORWARD,), Pass.B: (Way.REPLAY, Way.BACKWARD, Way.BACKWARD_DATA, Way.BACKWARD_WEIGHT),
    Pass.D: (Way.REPLAY, Way.BACKWARD_DATA), Pass.W: (Way.BACKWARD_WEIGHT,),
}  # fmt: skip
FORWARD: Final = (Way.FORWARD, Way.REPLAY)
Taken = Mapping[str, int]  # ps of tasks by name
Kept = tuple[int, int]  # of a task of a slot: its act, and its number in what was lowered for that


class Rows(NamedTuple):
    """What routing makes of some micro-batches in a stage, int64[micro-batches, layers, ...]: experts [..., R] ps, by
    the way of their nodes and whether transfers hold SMs beside them; by whether rows come back and for each stage of
    an exchange sizes [..., F] bytes and starts ps.
    """

    experts: dict[tuple[Way, bool], Int64s]
    sizes: dict[bool, list[Int64s]]
    starts: dict[bool, list[Int64s]]


class Spent(NamedTuple):
    """Of each lane in a slot, int64[R] ps: from when to when, computing, and waiting for others of its exchanges."""

    begin: Int64s
    end: Int64s
    compute: Int64s
    waiting: Int64s


class Filled(NamedTuple, Generic[What]):
    """Tasks int64[n, stages of an exchange, or 1] of an act that have the layers int64[n]; what: of experts their
    way, of exchanges whether rows come back.
    """

    act: int
    tasks: Int64s
    layers: Int64s
    what: What


@dataclass(frozen=True, eq=False)
class SlotPattern:
    """values: with even rows, exchanges empty; experts and exchanges: what is filled."""

    skeleton: Skeleton
    pairs: Pairs
    values: Values
    experts: tuple[Filled[Way], ...]
    exchanges: tuple[Filled[bool], ...]

    def filled(self, acts: Sequence[tuple[Rows, int]]) -> Values:
        """The values with the rows of each act: of a number of its micro-batches."""
        lanes = self.values.lane_ps.reshape(self.skeleton.graph.num_tasks, -1).copy()
        size, alpha = self.values.size.copy(), self.values.alpha.copy()
        for act, tasks, layers, way in self.experts:
            of, number = acts[act]
            lanes[tasks[:, 0]] = of.experts[way, len(acts) > 1][number, layers]
        for act, tasks, layers, back in self.exchanges:
            of, number = acts[act]
            for stage, (sent, start) in enumerate(zip(of.sizes[back], of.starts[back], strict=True)):
                alpha[tasks[:, stage]] = start[number, layers]
                for task, layer in zip(tasks[:, stage].tolist(), layers.tolist(), strict=True):
                    at = self.skeleton.size_at[task]
                    size[at : at + sent.shape[2]] = sent[number, layer]
        return Values(lanes.ravel(), size, alpha)

    def play(self, acts: Sequence[tuple[Rows, int]], begin: Int64s) -> Spent:
        """begin int64[R] ps: before which a lane does nothing. Raises Deadlock."""
        values, after, waits = self._timed(acts, begin)
        graph = self.skeleton.graph
        compute = values.lane_ps.reshape(graph.num_tasks, -1)[graph.stream == STREAMS.index(COMPUTE)].sum(axis=0)
        return Spent(begin, after.clock.max(axis=1), compute, waits.sum(axis=0))

    def waits(self, acts: Sequence[tuple[Rows, int]], begin: Int64s) -> list[tuple[str, Int64s]]:
        """Of each transfer in their order its name, and int64[R] ps that each lane waits for the last one in it, or
        before it.
        """
        names = [self.skeleton.graph.name[task].removesuffix(NOTIFY) for task in np.flatnonzero(self._waited).tolist()]
        return list(zip(names, self._timed(acts, begin)[2], strict=True))

    @cached_property
    def _waited(self) -> npt.NDArray[np.bool_]:
        """bool[tasks]: those in which lanes wait for each other: the meeting before a transfer, or where there is none
        the transfer itself.
        """
        names = self.skeleton.graph.name
        meetings, moves = np.array([name.endswith(NOTIFY) for name in names]), self.skeleton.pattern >= 0
        alone = np.array([name + NOTIFY not in names for name in names])
        return np.asarray(meetings | (moves & alone))

    def _timed(self, acts: Sequence[tuple[Rows, int]], begin: Int64s) -> tuple[Values, State, Int64s]:
        """What is played, the clocks behind it, and int64[transfers, R] ps of waiting."""
        values = self.filled(acts)
        clock = np.repeat(begin[:, None], len(STREAMS), axis=1)
        after, _, start = timed(self.skeleton, values, self.pairs, State(clock, np.zeros_like(begin)))
        at = start.reshape(self.skeleton.graph.num_tasks, -1)[self._waited]
        return values, after, at.max(axis=1, keepdims=True) - at


def slot_pattern(
    passes: Sequence[tuple[Lowered, Pass]], exchange: Exchange | None, slowdown: float,
    capacity: npt.NDArray[np.float64], taken: Taken,
) -> SlotPattern:  # fmt: skip
    """Of the passes of a slot, lowered with even rows. Of two, tasks are queued so that each one's transfers run beside
    the other's compute, GEMMs on the SMs that they leave (DeepSeek-V3, section 3.2.1).
    """
    kept = queued(passes, taken)
    moved = _coflows(kept, passes, exchange)
    graph = _joined(kept, passes, moved, slowdown if len(passes) > 1 and exchange else 1.0)
    pattern, patterns, size, alpha = _moved(moved)
    skeleton = Skeleton(replace(graph, coflow=pattern, coflows=()), patterns, pattern)
    experts, exchanges = _routed(kept, passes, exchange)
    return SlotPattern(skeleton, skeleton.pairs(capacity), Values(graph.lane_ps, size, alpha), experts, exchanges)


def _tasks_of(lowered: Lowered, what: Pass) -> list[int]:
    """Those of a pass."""
    nodes = enumerate(lowered.nodes)
    return [task for task, node in nodes if node.verb != Verb.OPTIMIZER and node.way in WAYS[what]]


def queued(passes: Sequence[tuple[Lowered, Pass]], taken: Taken) -> list[Kept]:
    """Tasks of all passes of a slot: of a forward and a backward pass as DeepSeek wrote them down (chunk.py), where its
    order has all that they do; else in turns.
    """
    tasks = [_tasks_of(*one) for one in passes]
    return (written_order(passes, tasks) if len(passes) > 1 else None) or place_in_turns(passes, taken)


def place_in_turns(passes: Sequence[tuple[Lowered, Pass]], taken: Taken) -> list[Kept]:
    """Tasks of all passes of a slot: next comes whichever queue can go on first, so that one computes while another's
    transfer is under way. Each pass is a queue in its own order; gradients of weights, for which nothing waits, are
    queues behind all others. taken: what depends on rows, with even ones.
    """
    queues = _queues(passes)
    here = {one for queue in queues for one in queue}
    at, free, done, placed = [0] * len(queues), dict[str, int](), dict[Kept, int](), list[Kept]()

    def waits(one: Kept) -> bool:
        return any(before in here and before not in done for before in _before(passes, one))

    while len(placed) < sum(map(len, queues)):
        begin, _, _, which = min(
            (_begins(passes, queue[at[number]], free, done), number >= len(passes), at[number] / len(queue), number)
            for number, queue in enumerate(queues) if at[number] < len(queue) and not waits(queue[at[number]])
        )  # fmt: skip
        one = queues[which][at[which]]
        graph, task = passes[one[0]][0].graph, one[1]
        own = int(to_ps(float(graph.lane_seconds[graph.lane_ptr[task]])))
        done[one] = begin + taken.get(graph.name[task], own)
        free[graph.streams[graph.stream[task]]] = done[one]
        placed.append(one)
        at[which] += 1
    return placed


def _queues(passes: Sequence[tuple[Lowered, Pass]]) -> list[list[Kept]]:
    """Of each pass its tasks, gradients of weights that stand beside those of inputs apart and last."""
    first, last = list[list[Kept]](), list[list[Kept]]()
    for act, (lowered, what) in enumerate(passes):
        tasks = _tasks_of(lowered, what)
        aside = [task for task in tasks if what == Pass.B and lowered.nodes[task].way == Way.BACKWARD_WEIGHT]
        first.append([(act, task) for task in tasks if task not in aside])
        last.append([(act, task) for task in aside])
    return [queue for queue in (*first, *last) if queue]


def _begins(
    passes: Sequence[tuple[Lowered, Pass]], one: Kept, free: Mapping[str, int], done: Mapping[Kept, int]
) -> int:  # fmt: skip
    """ps at which a task's stream is free and what it follows is done."""
    graph, task = passes[one[0]][0].graph, one[1]
    ready = (done.get(before, 0) for before in _before(passes, one))
    return max(free.get(graph.streams[graph.stream[task]], 0), *ready, 0)


def _before(passes: Sequence[tuple[Lowered, Pass]], one: Kept) -> list[Kept]:
    """Tasks that a task follows."""
    act, task = one
    graph = passes[act][0].graph
    return [(act, number) for number in graph.edge_from[graph.edge_ptr[task] : graph.edge_ptr[task + 1]].tolist()]


class Moved(NamedTuple):
    """What a task moves, if anything; whether its bytes are those of every micro-batch."""

    coflow: Coflow | None
    fixed: bool


def _joined(
    kept: list[Kept], passes: Sequence[tuple[Lowered, Pass]], moved: Sequence[Moved], slowdown: float
) -> TaskGraph:  # fmt: skip
    """One graph, whose streams are numbered as in STREAMS."""
    builder = GraphBuilder()
    number = {one: place for place, one in enumerate(kept)}
    seconds = [_seconds(lowered, slowdown) for lowered, _ in passes]
    for (act, task), (coflow, _) in zip(kept, moved, strict=True):
        graph = passes[act][0].graph
        edges = range(int(graph.edge_ptr[task]), int(graph.edge_ptr[task + 1]))
        met = [(number.get((act, int(graph.edge_from[edge])), -1), Join(int(graph.edge_join[edge]))) for edge in edges]
        lanes = graph.lanes(task)
        builder.add(
            graph.name[task], graph.name[task], graph.streams[graph.stream[task]], graph.lane_rank[lanes],
            None if coflow else seconds[act][lanes], coflow, [one for one in met if one[0] >= 0],
            int(graph.layer[task]),
        )  # fmt: skip
    graph = builder.build()
    stream = np.array([STREAMS.index(graph.streams[one]) for one in graph.stream.tolist()], dtype=np.int8)
    return replace(graph, stream=stream, streams=STREAMS)


def _seconds(lowered: Lowered, slowdown: float) -> npt.NDArray[np.float64]:
    own = lowered.graph.lane_seconds
    return own + lowered.work[GEMM] * (slowdown - 1) if slowdown > 1 and GEMM in lowered.work else own


def _coflows(
    kept: list[Kept], passes: Sequence[tuple[Lowered, Pass]], exchange: Exchange | None
) -> list[Moved]:  # fmt: skip
    """Of each task: of an exchange all pairs that it can have, of a ring as it is."""
    found = list[Moved]()
    for place, (act, task) in enumerate(kept):
        lowered = passes[act][0]
        graph, node = lowered.graph, lowered.nodes[task]
        if graph.coflow[task] < 0:
            found.append(Moved(None, False))
        elif exchange and _exchanged(lowered, task):
            stages = exchange.back if BACK[node.verb, node.way in FORWARD] else exchange.there
            found.append(Moved(stages[_stage(kept, passes, place, len(stages))].coflow, False))
        else:
            found.append(Moved(graph.coflows[graph.coflow[task]], True))
    return found


def _moved(moved: Sequence[Moved]) -> tuple[Int32s, tuple[Pattern, ...], Int64s, Int64s]:
    """Of each task its pair list and start-up, and the bytes of all: of exchanges none yet."""
    pattern, alpha = np.full(len(moved), -1, dtype=np.int32), np.zeros(len(moved), dtype=np.int64)
    sizes, known = [np.zeros(0, dtype=np.int64)], dict[int, Pattern]()
    for place, (coflow, fixed) in enumerate(moved):
        if coflow:
            known.setdefault(id(coflow), Pattern.of(coflow))
            pattern[place] = list(known).index(id(coflow))
            alpha[place] = int(to_ps(coflow.alpha)) if fixed else 0
            sizes.append(coflow.bytes if fixed else np.zeros_like(coflow.bytes))
    return pattern, tuple(known.values()), np.concatenate(sizes), alpha


def _exchanged(lowered: Lowered, task: int) -> bool:
    """Rings of a tensor group stand in the same nodes."""
    return lowered.graph.name[task] in EXCHANGES


def _stage(kept: list[Kept], passes: Sequence[tuple[Lowered, Pass]], place: int, stages: int) -> int:
    """Which stage of its exchange a transfer is: as many of its node stand before it."""
    act, task = kept[place]
    lowered = passes[act][0]
    node = lowered.nodes[task]
    before = sum(
        one == act and lowered.nodes[number] is node and _exchanged(lowered, number) for one, number in kept[:place]
    )
    return before % stages


def _routed(
    kept: list[Kept], passes: Sequence[tuple[Lowered, Pass]], exchange: Exchange | None
) -> tuple[tuple[Filled[Way], ...], tuple[Filled[bool], ...]]:
    """Tasks of experts by act and way, and of exchanges by act and whether rows come back."""
    experts: dict[tuple[int, Way], list[tuple[int, int]]] = {}
    moves: dict[tuple[int, bool], list[tuple[int, int]]] = {}
    for place, (act, task) in enumerate(kept):
        lowered = passes[act][0]
        node = lowered.nodes[task]
        if node.verb == Verb.EXPERTS:
            way = Way.FORWARD if node.way in FORWARD else node.way
            experts.setdefault((act, way), []).append((place, node.layer))
        elif exchange and _exchanged(lowered, task):
            moves.setdefault((act, BACK[node.verb, node.way in FORWARD]), []).append((place, node.layer))
    stages = len(exchange.there) if exchange else 1
    return (
        tuple(_filled(act, way, found, 1, passes) for (act, way), found in experts.items()),
        tuple(_filled(act, back, found, stages, passes) for (act, back), found in moves.items()),
    )


def _filled(
    act: int, what: What, found: list[tuple[int, int]], stages: int, passes: Sequence[tuple[Lowered, Pass]]
) -> Filled[What]:
    routed = sorted({node.layer for node in passes[act][0].nodes if node.verb == Verb.EXPERTS})
    tasks = np.array([place for place, _ in found], dtype=np.int64).reshape(-1, stages)
    layers = np.array([routed.index(layer) for _, layer in found[::stages]], dtype=np.int64)
    return Filled(act, tasks, layers, what)
