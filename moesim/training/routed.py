"""A pipelined step in which every layer and micro-batch has its own routing, played slot by slot with carried clocks.

Ranks of a stage that hold all experts together are an island; islands meet at the reduction of gradients alone. In an
island every rank has a clock of its own: who has fewer rows waits in the next exchange, a stage that gets its tokens
late waits for the one before, a replica that is done early waits at the reduction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.layout.shards import GRADIENTS
from moesim.network import Group, all_to_all
from moesim.network.copies import Matrix
from moesim.routing import Balanced
from moesim.routing.sources.sequences import Sequences
from moesim.routing.sources.source import Rows as SentRows
from moesim.schedules import Verb
from moesim.schedules.pipelines import Act, Pass, Slot, needs, play
from moesim.step import Batch, Phase, StepPlan, lower
from moesim.step.exchanges import Exchange
from moesim.step.lowered import Lowered
from moesim.training.corpus import Corpus
from moesim.training.expert_work import ExpertWork
from moesim.training.job import Job
from moesim.training.passes import Layers, StageKind, stage_kind
from moesim.training.slots import EXCHANGES, Rows, SlotPattern, Spent, slot_pattern
from moesim.training.stages import SplitSchedule, Stage, StageSchedule
from moesim.training.step import handed_on_ps
from moesim.units import from_ps

Int64s = npt.NDArray[np.int64]
TOGETHER: Final = 32  # micro-batches whose routing is looked up at once: arrays of some megabytes


class Lanes(NamedTuple):
    """int64[pipeline ranks, islands, R] ps of every rank: computing; waiting for others of its exchanges while nothing
    else is done; for other stages; end: of its last pass.
    """

    compute: Int64s
    group: Int64s
    stages: Int64s
    end: Int64s


@dataclass(frozen=True)
class RoutedStep:
    """after int64[pipeline ranks, 2] ps: reduction and gathering, and the optimizer, behind the last pass; alltoalls:
    how many were played; drop_rate: share of rows without a place; load int64[moe layers, experts]: rows that were
    chosen and had a place. done: slots of the first island, from when its first rank begins to when its last one ends.
    rings int64[pipeline ranks] ps: what transfers of its tensor and context groups take, hidden or not.
    """

    lanes: Lanes
    after: Int64s
    transfer: int
    ranks: tuple[tuple[int, ...], ...]
    alltoalls: int
    drop_rate: float
    load: Int64s
    done: tuple[tuple[int, Slot, int, int], ...]
    rings: Int64s

    @property
    def seconds(self) -> float:
        """Until the last stage has its new parameters."""
        return float(from_ps(int((self.ends + self.after.sum(axis=1)).max())))

    @property
    def ends(self) -> Int64s:
        """int64[pipeline ranks] ps: when the last island has done its passes."""
        found: Int64s = self.lanes.end.max(axis=(1, 2))
        return found

    @property
    def last(self) -> tuple[int, int, int]:
        """Pipeline rank, island and lane whose passes and optimizer end last."""
        rank = int((self.ends + self.after.sum(axis=1)).argmax())
        island, lane = np.unravel_index(int(self.lanes.end[rank].argmax()), self.lanes.end.shape[1:])
        return rank, int(island), int(lane)

    @property
    def exposed(self) -> tuple[Int64s, Int64s]:
        """int64[pipeline ranks, islands, R] ps that are neither computing nor waiting: all-to-alls, and transfers of
        tensor and context groups; what other passes leave of both is theirs first.
        """
        lanes = self.lanes
        moved = lanes.end - lanes.stages - lanes.compute - lanes.group
        rings = np.minimum(moved, self.rings[:, None, None])
        return moved - rings, rings

    @property
    def replicas(self) -> Int64s:
        """int64[pipeline ranks, islands, R] ps: waiting for other islands at the reduction."""
        return np.asarray(self.ends[:, None, None] - self.lanes.end)


class OneEach(Balanced):
    """A row of every rank, of its first token: what stands in for rows that are filled in later."""

    def rows(self, layer: int, request: Int64s, position: Int64s, rank: npt.NDArray[np.int32]) -> SentRows:
        """As in RoutingSource."""
        first = np.unique(rank, return_index=True)[1]
        return super().rows(layer, request[first], position[first], rank[first])


class RoutedJob:
    """A Job with a source of routing: patterns of its slots, kept by what they are made of. Raises BadInput on what is
    not played with rows of its own.
    """

    def __init__(self, job: Job, source: Sequences) -> None:
        _check(job)
        self.job, self.source = job, source
        self.island = job.island(job.stages[0]).layout
        self.batch = job.batch(self.island.world)
        self.group = Group(job.cluster, np.arange(self.island.world, dtype=np.int32))
        self._moe = job.model.moe_layers
        self.plans = {stage.number: self.plan(stage) for stage in job.stages}
        first = self.plans[job.stages[-1].number]
        self._exchange = Exchange(first, self.group) if first.exchanges else None
        whole = job.placement(job.model)
        stretch = (int(self.batch.context[0]), int(self.batch.query[0]))
        reads = first.dispatch.algorithm.reads if self._exchange else ()
        self._corpus = Corpus(source, whole, self.group.node_of_lane, stretch, reads, job.limit)
        self._work = ExpertWork(first, whole.num_slots // whole.num_ranks)
        self._lowered: dict[tuple[StageKind, bool], Lowered] = {}
        self._patterns: dict[tuple[tuple[StageKind, Pass], ...], SlotPattern] = {}

    def plan(self, stage: Stage) -> StepPlan:
        """Of one island of a stage."""
        return self.job.island(stage)

    def sequences(self, island: int, micro_batches: Int64s) -> Int64s:
        """int64[m] -> int64[m, R, n]: the sequences of micro-batches on an island, the same in all stages."""
        job, lanes = self.job, self.island.world
        lane = (island * lanes + np.arange(lanes))[:, None]
        number = lane * job.micro_batches + micro_batches[:, None, None]
        found: Int64s = number * job.sequences + np.arange(job.sequences)
        return found

    def micro_batch(self, island: int, micro_batch: int) -> Batch:
        """The same as a Batch, which `lower` takes."""
        one, request = self.batch, self.sequences(island, np.array([micro_batch])).ravel()
        made = Batch.of(one.ranks, one.rank, request, one.query, one.context, Phase.PREFILL)
        return made.for_training()

    def load(self, islands: int) -> tuple[Int64s, float]:
        """Rows of a step that have a place int64[moe layers, experts], on so many islands; the share of those chosen
        that have none.
        """
        read = [self.sequences(one, np.arange(self.job.micro_batches)) for one in range(islands)]
        kept, chosen = (np.sum([ask(one) for one in read], axis=0) for ask in (self._corpus.load, self._corpus.chosen))
        return kept, float(1 - kept.sum() / max(chosen.sum(), 1))

    def rows(self, stage: Stage, island: int, micro_batches: Int64s) -> Rows:
        """What routing makes of micro-batches int64[m] in a stage."""
        layers, plan = self.job.moe_layers_of(stage), self.plans[stage.number]
        count, many = len(layers), len(micro_batches)
        if not count:
            return Rows({}, {}, {})
        found = self._corpus.of(slice(layers.start, layers.stop), self.sequences(island, micro_batches))
        ticks = self._work.ps(found.by_rank, plan.dispatch.slowdown if self._exchange else 1.0)
        experts = {key: ps.reshape(many, count, -1) for key, ps in ticks.items()}
        if self._exchange is None:
            return Rows(experts, {False: [], True: []}, {False: [], True: []})
        hops, sizes, starts = self._exchange.hops(found.copies), dict[bool, list[Int64s]](), dict[bool, list[Int64s]]()
        for back in (False, True):
            sizes[back], alphas = _exchanged(self._exchange, hops, many * count, back=back)
            sizes[back] = [size.reshape(many, count, -1) for size in sizes[back]]
            starts[back] = [alpha.reshape(many, count) for alpha in alphas]
        return Rows(experts, sizes, starts)

    def lowered(self, stage: Stage, what: Pass, *, beside: bool) -> Lowered:
        """The passes of a stage, hardly any rows: those are filled in. beside: it overlaps with another pass."""
        split = apart(what, beside=beside)
        key = (stage_kind(self.job.model, stage), split)
        if key not in self._lowered:
            plan = self.plans[stage.number]
            schedule = SplitSchedule(stage) if split else plan.schedule
            few = OneEach(self.job.model) if plan.model.routed else plan.routing
            self._lowered[key] = lower(replace(plan, schedule=schedule, routing=few), [self.batch])
        return self._lowered[key]

    @cached_property
    def taken(self) -> dict[str, int]:
        """ps of each task of a layer with experts that depends on rows, with even ones: experts, and all-to-alls."""
        if not self._moe:
            return {}
        layer = self._moe[0]
        stage, found = Stage(1, 3, layer, layer + 1), dict[str, int]()
        for schedule in (SplitSchedule(stage), StageSchedule(stage)):
            lowered = lower(replace(self.job.island(stage), schedule=schedule), [self.batch])
            line, graph = evaluate(lowered.graph, self.job.fabric.capacity), lowered.graph
            spent = (line.end - line.start)[graph.lane_ptr[:-1]].tolist()
            tasks = zip(graph.name, lowered.nodes, spent, strict=True)
            found |= {name: ps for name, node, ps in tasks if name in EXCHANGES or node.verb == Verb.EXPERTS}
        return found

    def pattern(self, slot: Slot) -> SlotPattern:
        """Of a slot."""
        stages = [self.job.stages[act.stage] for act in slot]
        key = tuple((stage_kind(self.job.model, stage), act.what) for stage, act in zip(stages, slot, strict=True))
        if key not in self._patterns:
            beside = len(slot) > 1
            passes = [
                (self.lowered(stage, act.what, beside=beside), act.what)
                for stage, act in zip(stages, slot, strict=True)
            ]  # fmt: skip
            slowdown = self.plans[stages[0].number].dispatch.slowdown
            self._patterns[key] = slot_pattern(passes, self._exchange, slowdown, self.job.fabric.capacity,
                                               self.taken if len(slot) > 1 else {})  # fmt: skip
        return self._patterns[key]

    def in_order(self) -> list[tuple[int, Slot]]:
        """(pipeline rank, slot) in an order in which each comes after what it needs. Raises Deadlock."""
        played = play(self.job.schedule.orders, lambda rank, slot: 1)
        begun = [
            (played.start[rank][number], rank, slot)
            for rank, slots in enumerate(played.orders) for number, slot in enumerate(slots)
        ]  # fmt: skip
        return [(rank, slot) for _, rank, slot in sorted(begun, key=lambda one: one[:2])]


def apart(what: Pass, *, beside: bool) -> bool:
    """Whether a pass has gradients of weights apart from those of inputs: always where they are passes of their own,
    and beside another pass, whose transfers they then fill the time of (DeepSeek-V3, section 3.2.1, figure 4).
    """
    return what in (Pass.D, Pass.W) or (beside and what == Pass.B)


def _exchanged(
    exchange: Exchange, hops: tuple[Matrix, ...], many: int, *, back: bool
) -> tuple[list[Int64s], list[Int64s]]:  # fmt: skip
    """rows int64[many, R, R] of each stage on the way there -> bytes int64[many, F], start-ups int64[many] of each."""
    flows = [len(stage.cell) for stage in (exchange.back if back else exchange.there)]
    base = np.cumsum([0, *flows]) * many
    at = base[:-1] + np.arange(many)[:, None] * np.array(flows)
    size = np.zeros(int(base[-1]), dtype=np.int64)
    starts = exchange.fill(hops, np.arange(many), at, size, back=back)
    return [part.reshape(many, -1) for part in np.split(size, base[1:-1])], starts


def routed_step(job: Job, source: Sequences, islands: int | None = None) -> RoutedStep:
    """Play one step; islands: how many of a stage, all by default. Raises BadInput, Deadlock."""
    whole = RoutedJob(job, source)
    order, number = whole.in_order(), islands or job.layout.expert_data_parallel
    transfer = handed_on_ps(job)
    parts = [_Island(whole, island, transfer) for island in range(number)]
    for part in parts:
        part.play(order)
    lanes = Lanes(*(np.stack([getattr(part, name) for part in parts], axis=1) for name in Lanes._fields))
    layers = Layers(job)
    ranks = tuple(tuple(stage.number for stage in job.stages_of(rank)) for rank in range(job.pipeline))
    after = [np.sum([layers.after(job.stages[one]) for one in stages], axis=0) for stages in ranks]
    load, dropped = whole.load(number)
    return RoutedStep(lanes, np.array(after, dtype=np.int64), transfer, ranks, sum(part.alltoalls for part in parts),
                      dropped, load, tuple(parts[0].done), _rings(job, layers))  # fmt: skip


def _rings(job: Job, layers: Layers) -> Int64s:
    """int64[pipeline ranks] ps of all passes: they carry every token, whichever experts it takes."""
    found = np.zeros(job.pipeline, dtype=np.int64)
    for rank in range(job.pipeline) if job.tensor * job.context > 1 else ():
        found[rank] = sum(number * layers.passes(stage).one.ring for stage, number in job.passed(rank))
    return found


class _Island:
    """The ranks of one island in all stages, while its slots are played."""

    def __init__(self, whole: RoutedJob, island: int, transfer: int) -> None:
        self._whole, self._island, self._transfer = whole, island, transfer
        job = whole.job
        size = (job.pipeline, whole.island.world)
        self.compute, self.group, self.stages, self.end = (np.zeros(size, dtype=np.int64) for _ in range(4))
        self._done: dict[Act, tuple[int, Int64s]] = {}
        self._rows: dict[tuple[int, int], Rows] = {}
        self._left: dict[tuple[int, int], int] = {}
        self._last = len(job.stages) - 1
        self.alltoalls = 0
        self.done: list[tuple[int, Slot, int, int]] = []

    def play(self, order: list[tuple[int, Slot]]) -> None:
        """All slots."""
        for rank, slot in order:
            before = self.end[rank]
            begin = self._begins(rank, slot)
            pattern = self._whole.pattern(slot)
            spent = pattern.play([self._routed(act) for act in slot], begin)
            self._drop(slot)
            self.alltoalls += sum(filled.tasks.shape[0] for filled in pattern.exchanges)
            self._count(rank, slot, spent, before)

    def _begins(self, rank: int, slot: Slot) -> Int64s:
        """int64[R] ps: the rank is free, and what the slot needs is there."""
        begin: Int64s = self.end[rank].copy()
        for act in slot:
            for one in needs(act, self._last):
                if one not in slot:
                    known = Act(Pass.B, *one[1:]) if one.what == Pass.D else one
                    source, ended = self._done[known]
                    np.maximum(begin, ended + (self._transfer if source != rank else 0), out=begin)
        return begin

    def _routed(self, act: Act) -> tuple[Rows, int]:
        """Looked up for TOGETHER micro-batches at once, kept until all have done their backward pass."""
        key = (act.stage, act.micro_batch // TOGETHER)
        if key not in self._rows:
            job = self._whole.job
            first = key[1] * TOGETHER
            numbers = np.arange(first, min(first + TOGETHER, job.micro_batches))
            self._rows[key] = self._whole.rows(job.stages[act.stage], self._island, numbers)
            self._left[key] = len(numbers)
        return self._rows[key], act.micro_batch % TOGETHER

    def _drop(self, slot: Slot) -> None:
        for act in slot:
            if act.what in (Pass.B, Pass.W):
                key = (act.stage, act.micro_batch // TOGETHER)
                self._left[key] -= 1
                if not self._left[key]:
                    del self._rows[key]

    def _count(self, rank: int, slot: Slot, spent: Spent, before: Int64s) -> None:
        self.stages[rank] += spent.begin - before
        self.compute[rank] += spent.compute
        self.group[rank] += np.minimum(spent.waiting, spent.end - spent.begin - spent.compute)
        self.end[rank] = spent.end
        self.done.append((rank, slot, int(spent.begin.min()), int(spent.end.max())))
        for act in slot:
            self._done[Act(Pass.B, *act[1:]) if act.what == Pass.D else act] = (rank, spent.end)


def _check(job: Job) -> None:
    """Raises BadInput."""
    each = job.cluster.gpus_per_node
    width = job.layout.island
    reasons = {
        "experts over tensor-parallel ranks": (job.layout.expert_tensor_parallel > 1, "expert_tensor_parallel_size: 1"),
        f"zero_stage {job.zero}, which moves layers in every pass": (job.zero >= GRADIENTS, "zero_stage: 1"),
        "all-to-alls that are hidden behind any compute": (job.overlap, "hide_alltoall: false, or schedule: dualpipe"),
        f"places of experts behind {job.dispatch}, which merges copies": (
            job.limit is not None and not {"pairs", "tokens"}.issuperset(all_to_all.find(job.dispatch).reads),
            "comm.dispatch: nccl"
        ),
        f"expert groups of {width} GPUs in nodes of {each}": (
            width % each > 0 and each % width > 0, f"a multiple or a divisor of {each}"
        ),
    }  # fmt: skip
    for what, (holds, way_out) in reasons.items():
        if holds:
            even = "routing: {balanced: true}"
            raise BadInput(f"{what}: not played with rows of their own", way_out=f"{way_out}, or {even}")
