"""Rows of their own for every layer and micro-batch: slot by slot with carried clocks, against one big graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from moesim.costs import load_costs
from moesim.engine import GraphBuilder, Join, TaskGraph, evaluate
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.layout import Placement
from moesim.models import Attention, MoEModel
from moesim.routing import Balanced, Sampled
from moesim.routing.sources.in_places import InPlaces, Limit
from moesim.routing.sources.sequences import Sequences
from moesim.schedules.pipelines import Act, Pass, Slot, needs
from moesim.step import lower
from moesim.step.exchanges import Exchange
from moesim.step.lowered import Lowered
from moesim.training import Job, overlapped_ps, train_step
from moesim.training.routed import RoutedJob, _exchanged, apart, routed_step
from moesim.training.slots import WAYS, queued
from moesim.training.stages import SplitSchedule
from moesim.training.step import handed_on_ps

MODEL = MoEModel(
    "hand", "hand", 1024, 8, 6016, False, Attention("gqa", 16, 4, 64, 64), (1, 2, 3, 4, 5, 6, 7), 16, 4, 512,
    shared_intermediate=512, dense_intermediate=4096,
)  # fmt: skip
CLUSTERS = {nodes: load_cluster("dgx-h100", nodes=nodes) for nodes in (1, 2)}
ELSEWHERE = Placement(
    np.stack([np.random.default_rng(layer).permutation(16).astype(np.int32) for layer in range(7)]),
    np.tile(np.arange(16, dtype=np.int32) // 4, (7, 1)), 16, 4,
)  # fmt: skip


def job(**changes: object) -> Job:
    """Four stages of four ranks, eight micro-batches."""
    cluster = CLUSTERS[2]
    keys = {"world": 16, "micro_batches": 8, "sequence": 256, "pipeline": 4, "expert": 4, **changes}
    return Job(MODEL, cluster, load_costs("roofline", cluster.devices[0]), **keys)  # type: ignore[arg-type]


def sequences(model: MoEModel = MODEL, number: int = 8) -> Sequences:
    return Sequences(Sampled("prefill_in4096", model, 3), number)


class Whole:
    """All acts of all stages on ranks stage x lanes + lane as one TaskGraph, from graphs of `lower` alone."""

    def __init__(self, one: RoutedJob) -> None:
        self.one, self.lanes, self.builder = one, one.island.world, GraphBuilder()
        self.ended: dict[Act, list[int]] = {}  # of an act, the task of each lane after which its slot is done
        self.before: dict[int, list[int]] = {}
        self.place: dict[Act, int] = {}

    def graph(self) -> TaskGraph:
        for rank, slot in self.one.in_order():
            self.barrier(rank, self.arrivals(rank, slot))
            self.slot(rank, slot)
            done = self.barrier(rank, [[] for _ in range(self.lanes)])
            for act in slot:
                known = Act(Pass.B, *act[1:]) if act.what == Pass.D else act
                self.ended[known], self.place[known] = done, rank
        return self.builder.build()

    def arrivals(self, rank: int, slot: Slot) -> list[list[int]]:
        """Of each lane the tasks that bring it what the slot needs: from the same lane of the other stage."""
        came: list[list[int]] = [[] for _ in range(self.lanes)]
        last = len(self.one.job.stages) - 1
        for act in slot:
            for need in needs(act, last):
                known = Act(Pass.B, *need[1:]) if need.what == Pass.D else need
                if need in slot or self.place[known] == rank:
                    continue
                source = self.place[known] * self.lanes
                for lane in range(self.lanes):
                    after = [(self.ended[known][lane], Join.GROUP)]
                    seconds = 1e-12 * self.transfer
                    name = f"on its way {rank}"
                    came[lane].append(self.builder.add("sent", "sent", name, [source + lane], seconds, after=after))
        return came

    @property
    def transfer(self) -> int:
        return handed_on_ps(self.one.job)

    def barrier(self, rank: int, came: list[list[int]]) -> list[int]:
        """Each lane alone: both its streams are idle, and what it waits for is there."""
        done = []
        for lane in range(self.lanes):
            where = [rank * self.lanes + lane]
            after = [(task, Join.GROUP) for task in came[lane]]
            comm = self.builder.add("idle", "idle", "comm", where, 0.0, after=after)
            compute = self.builder.add("idle", "idle", "compute", where, 0.0, after=[*after, (comm, Join.GROUP)])
            self.builder.add("idle", "idle", "comm", where, 0.0, after=[(compute, Join.GROUP)])
            done.append(compute)
        return done

    def slot(self, rank: int, slot: Slot) -> None:
        lowered = [self.lowered(act, beside=len(slot) > 1) for act in slot]
        slowdown = self.one.plan(self.one.job.stages[0]).dispatch.slowdown if len(slot) > 1 else 1.0
        numbers: dict[tuple[int, int], int] = {}
        passes = [(of, act.what) for of, act in zip(lowered, slot, strict=True)]
        for act, task in queued(passes, self.one.taken if len(slot) > 1 else {}):
            numbers[act, task] = self.task(rank, lowered[act], task, act, numbers, slowdown)

    def lowered(self, act: Act, *, beside: bool) -> Lowered:
        """The pass of its own micro-batch, by the source, token by token."""
        one, stage = self.one, self.one.job.stages[act.stage]
        source = replace(one.source, first=one.job.moe_layers_of(stage).start)
        plan = replace(one.plan(stage), routing=InPlaces(source, one.job.limit) if one.job.limit else source)
        if apart(act.what, beside=beside):
            plan = replace(plan, schedule=SplitSchedule(stage))
        found = lower(plan, [one.micro_batch(0, act.micro_batch)])
        assert any(node.way in WAYS[act.what] for node in found.nodes)
        return found

    def task(
        self, rank: int, of: Lowered, task: int, act: int, numbers: dict[tuple[int, int], int], slowdown: float
    ) -> int:
        graph, lanes = of.graph, of.graph.lanes(task)
        edges = range(int(graph.edge_ptr[task]), int(graph.edge_ptr[task + 1]))
        found = [(numbers.get((act, int(graph.edge_from[edge]))), Join(int(graph.edge_join[edge]))) for edge in edges]
        after = [(number, join) for number, join in found if number is not None]
        coflow = graph.coflows[graph.coflow[task]] if graph.coflow[task] >= 0 else None
        seconds = graph.lane_seconds[lanes] + of.work["gemm"][lanes] * (slowdown - 1)
        return self.builder.add(
            graph.name[task], graph.name[task], graph.streams[graph.stream[task]],
            graph.lane_rank[lanes] + rank * self.lanes, None if coflow else seconds, coflow, after,
        )  # fmt: skip


@pytest.mark.parametrize("changes", [
    {}, {"order": "dualpipe"}, {"order": "zb-h1"}, {"dispatch": "deepep_normal"}, {"dispatch_dtype": "fp8"},
    {"recompute": frozenset({"moe"})}, {"sequences": 2}, {"tensor": 2, "expert_tensor": 1},
    {"order": "interleaved", "chunks": 2}, {"dispatch": "hierarchical_2d", "recompute": frozenset({"core_attn"})},
    {"limit": Limit(1.0)}, {"limit": Limit(0.9), "order": "dualpipe"}, {"limit": Limit(1.25, pad=True)},
    {"placed": ELSEWHERE}, {"placed": ELSEWHERE, "limit": Limit(0.9)},
], ids=str)  # fmt: skip
def test_pattern_by_pattern_is_one_big_graph(changes: dict[str, object]) -> None:
    """16 ranks, 4 stages, 8 micro-batches: equal to the tick, every rank's last pass."""
    one = job(**changes)
    source = sequences()
    step = routed_step(one, source)
    graph = Whole(RoutedJob(one, source)).graph()
    line = evaluate(graph, one.fabric.capacity)
    own = np.array([not name.startswith("on its way") for name in graph.streams])[graph.stream[graph.lane_task]]
    ends: npt.NDArray[np.int64] = np.zeros(16, dtype=np.int64)
    np.maximum.at(ends, graph.lane_rank[own], line.end[own])
    assert step.lanes.end[:, 0].ravel().tolist() == ends.tolist()
    assert (step.lanes.group.sum() > 0) != bool(one.limit and one.limit.pad)


def test_places_that_are_all_sent_make_rows_even_and_as_many_as_there_are() -> None:
    """5 places of 4: a quarter more rows than even ones, whoever chose what."""
    padded = routed_step(job(limit=Limit(1.25, pad=True)), sequences())
    even = routed_step(job(limit=Limit(1.25, pad=True)), Sequences(Balanced(MODEL), 1))
    plain = routed_step(job(), Sequences(Balanced(MODEL), 1))
    assert padded.lanes.end.tolist() == even.lanes.end.tolist() and padded.lanes.group.max() == 0
    assert even.seconds > plain.seconds and padded.drop_rate > even.drop_rate == 0


def test_drops_are_what_finds_no_place_token_by_token() -> None:
    one = RoutedJob(job(limit=Limit(1.0)), sequences())
    kept, chosen = np.zeros((one.source.moe_layers, 16), dtype=np.int64), 0
    for number in range(one.job.micro_batches):
        batch = one.micro_batch(0, number)
        for layer in range(one.source.moe_layers):
            table = one.source.experts(layer, batch.token_request, batch.token_position)
            for lane in range(4):
                rows = np.bincount(table[batch.token_rank == lane].ravel(), minlength=16)
                kept[layer], chosen = kept[layer] + np.minimum(rows, 256 * 4 // 16), chosen + int(rows.sum())
    load, dropped = one.load(1)
    assert np.array_equal(load, kept)
    assert dropped == pytest.approx(1 - kept.sum() / chosen) and 0 < dropped < 0.5


def test_equal_lanes_never_wait_in_their_group() -> None:
    """Even rows to the last: nobody waits, and the step is as long as that of any other island."""
    even = routed_step(job(), Sequences(Balanced(MODEL), 1))
    assert even.lanes.group.max() == 0 and even.replicas.max() == 0
    skewed = routed_step(job(), sequences())
    assert skewed.seconds > even.seconds
    assert skewed.lanes.group.sum(axis=(1, 2)).min() > 0


def test_time_of_a_rank_adds_up() -> None:
    """Computing, waiting and what transfers take beside it: a rank does something all the time until its end."""
    step = routed_step(job(), sequences())
    lanes = step.lanes
    assert np.all(lanes.compute + lanes.group + lanes.stages <= lanes.end)
    rank, island, lane = step.last
    assert lanes.end[rank, island, lane] + step.after[rank].sum() == round(step.seconds * 1e12)


def test_islands_wait_for_each_other_at_the_reduction() -> None:
    """Two islands of four ranks a stage read other sequences; the one that is done first waits for the other."""
    step = routed_step(job(world=32), sequences())
    late = step.lanes.end.max(axis=2)
    assert np.all(step.replicas.min(axis=(1, 2)) == 0)
    assert np.array_equal(step.replicas.min(axis=2), late.max(axis=1, keepdims=True) - late)
    assert len({tuple(row) for row in step.lanes.end.sum(axis=2).T.tolist()}) == 2


def test_all_to_alls_are_counted() -> None:
    """Seven layers, eight micro-batches, there and back, forward and backward."""
    assert routed_step(job(), sequences()).alltoalls == 7 * 8 * 4


@pytest.mark.parametrize(("changes", "said"), [
    ({"tensor": 2, "expert": 2, "expert_tensor": 2}, "experts over tensor-parallel ranks"),
    ({"overlap": True}, "hidden behind any compute"),
    ({"limit": Limit(1.0), "dispatch": "deepep_normal"}, "places of experts behind deepep_normal"),
    ({"world": 24, "expert": 6}, "expert groups of 6 GPUs in nodes of 8"),
])  # fmt: skip
def test_what_is_not_played_with_own_rows_is_said(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        routed_step(job(**changes), sequences())


@pytest.mark.parametrize("changes", [
    {"order": "dualpipe"}, {"order": "dualpipe", "recompute": frozenset({"moe"})}, {"order": "dualpipev"},
    {"order": "zb-h1"}, {"order": "1f1b"},
], ids=str)  # fmt: skip
def test_one_rank_that_stands_for_its_stage_is_as_fast_as_all_of_them(changes: dict[str, object]) -> None:
    """Two players of one step with even rows: stages added up from layers, and all ranks task by task."""
    one = job(**changes)
    alone = train_step(one, overlapped_ps(one)).seconds
    assert routed_step(one, Sequences(Balanced(MODEL), 1)).seconds == pytest.approx(alone, rel=0.03)


def test_gradients_of_weights_take_their_own_time_and_not_half_of_the_backward_pass() -> None:
    """What is recomputed makes the pass of inputs longer, not that of weights."""
    plain, again = (
        [one.one for one in train_step(job(order="zb-h1", **changes)).passes]
        for changes in ({}, {"recompute": frozenset({"moe"})})
    )
    assert all(0 < pair.weights < pair.backward for pair in plain)
    assert [pair.weights for pair in plain] == [pair.weights for pair in again]
    assert all(more.backward > pair.backward for pair, more in zip(plain, again, strict=True))
    assert all(one.one.weights == 0 for one in train_step(job()).passes)


def test_passes_that_overlap_take_as_long_as_the_longer_of_them_or_all_their_compute() -> None:
    """Turns by who can go on first: nobody waits for the other's transfers, so that a slot is at one of its bounds."""
    one = RoutedJob(job(order="dualpipe"), sequences(number=1))
    both = next(slot for slot in one.job.schedule.orders[1] if len(slot) > 1)
    rows = [(one.rows(one.job.stages[act.stage], 0, np.array([0])), 0) for act in both]
    spent = one.pattern(both).play(rows, np.zeros(4, dtype=np.int64))
    each = [one.pattern((act,)).play([row], np.zeros(4, dtype=np.int64)) for act, row in zip(both, rows, strict=True)]
    bound = max(int(spent.compute.max()), *(int(alone.end.max()) for alone in each))
    assert bound <= spent.end.max() < 1.1 * bound


@pytest.mark.parametrize("back", [False, True])
def test_bytes_of_an_exchange_are_its_rows_in_a_column_for_each_pair(back: bool) -> None:
    """Four lanes, each a row to every other in two layers: 12 pairs of one row each, and not a byte behind them."""
    one = RoutedJob(job(), sequences())
    plan, group = next(iter(one.plans.values())), one.group
    exchange = Exchange(plan, group)
    rows = np.broadcast_to(1 - np.eye(4, dtype=np.int64), (2, 4, 4)).copy()
    (sizes,), _ = _exchanged(exchange, (rows,), 2, back=back)
    row = plan.dispatch.combine_row_bytes if back else plan.dispatch.dispatch_row_bytes
    assert sizes.shape == (2, 12) and set(sizes.ravel().tolist()) == {row}
