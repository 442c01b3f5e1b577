"""A filled skeleton is `lower` through `evaluate`, to the tick; a Pace counts what it looks up."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.hardware import known_topologies
from moesim.network import all_to_all
from moesim.schedules import registry
from moesim.step import Batch, Phase, StepPlan, lower
from moesim.step.fill import Refill
from moesim.step.pace import Pace, shape_of
from moesim.step.prices import ExpertPrices
from moesim.studies import load
from moesim.studies.build import build

TINY = ("batch.tokens_per_gpu=8",)
HALVES = "overlap.schedule=two_batch"
NODES = ("cluster.nodes=2",)
REPLICAS = "experts={redundant: 16, placement: greedy}"
POOL = "routing={sampled: decode_in2000out100}"


def parallel(tensor: int, data: int, expert: int) -> str:
    """The setting of degrees."""
    return f"parallel={{tensor_parallel_size: {tensor}, data_parallel_size: {data}, expert_parallel_size: {expert}}}"


WIDE = (*NODES, parallel(1, 16, 16))
PICKS = (
    "model={name: own, hidden_size: 512, num_layers: 3, dense_layers: 1, dense_intermediate: 1024, vocab_size: 4096, "
    "num_experts: 32, top_k: 2, expert_intermediate: 256, attention: {num_heads: 8, kv_lora_rank: 64, q_lora_rank: 64, "
    "qk_nope_head_dim: 64, qk_rope_head_dim: 32, v_head_dim: 64, selected: 24, index_heads: 4, index_dim: 64}}"
)
CASES = {
    "decode": (),
    "two_batch": (HALVES,),
    "three_batch": ("overlap.schedule=three_batch",),
    "five_stage": (*WIDE, "overlap.schedule=five_stage"),
    "tutel": ("overlap={schedule: tutel, degree: 3}", "comm.dispatch=deepep_normal"),
    "scmoe": (parallel(2, 4, 8), "overlap.schedule=scmoe"),
    "nccl": ("comm.dispatch=nccl",),
    "two nodes": WIDE,
    "sampled": (POOL,),
    "replicas": ("experts={redundant: 8, placement: greedy}",),
    "replicas of a pool": ("experts={redundant: 24, placement: greedy}", POOL, HALVES),
    "alone": (parallel(1, 1, 1),),
    "alone in halves": (parallel(1, 1, 1), HALVES),
    "tensor parallel": (parallel(4, 1, 1),),
    "tensor parallel, replicas of the model": (parallel(2, 4, 1),),
    "tensor and expert parallel": (parallel(4, 2, 8),),
    "experts by width": (parallel(4, 2, 2),),
    "smaller groups": (parallel(1, 8, 4), HALVES),
    "several groups, two nodes": (*NODES, parallel(2, 8, 8)),
    **{
        f"{name} over two nodes": (*WIDE, f"comm.dispatch={name}", HALVES)
        for name in ("pxn", "deepep_normal", "hierarchical_2d", "bilevel", "allgather_reducescatter")
    },
    "deepep_normal in a node": ("comm.dispatch=deepep_normal", HALVES),
    "nvlink_domain": ("comm.dispatch=nvlink_domain",),
    "replicated": (parallel(4, 2, 4), "comm.dispatch=replicated"),
    "replicated, width shared, in halves": (parallel(4, 2, 2), "comm.dispatch=replicated", HALVES),
    "gathered": ("comm.dispatch=allgather_reducescatter", HALVES),
    "merged copies of a pool": (*WIDE, "comm.dispatch=deepep_normal", POOL, REPLICAS),
    "merged copies of replicas": (*WIDE, "comm.dispatch=deepep_normal", REPLICAS),
    "picked tokens": ("routing={balanced: true}", "precision={}", PICKS),
    **{
        name: ("routing={balanced: true}", "precision={}", f"model={model}", "cluster.topology=hgx-h200", "costs=auto")
        for name, model in (("compressed", "DeepSeek-V4-Flash"), ("picked blocks", "MiniMax-M3"))
    },
    "width and merged copies": (*NODES, parallel(4, 4, 8), "comm.dispatch=deepep_normal"),
}


def plan_of(name: str) -> StepPlan:
    return build(load("demo-tiny", (*TINY, *CASES[name])), 0).plan


def some_batch(plan: StepPlan, seed: int, *, chunks: bool = True) -> Batch:
    """Decodes and chunks of prompts, at least four tokens a rank, an idle row here and there."""
    draw, ranks = np.random.default_rng(seed), plan.layout.world
    rank = np.concatenate((np.repeat(np.arange(ranks), 4), draw.integers(0, ranks, 12)))
    phase = np.where(draw.random(len(rank)) < 0.3, Phase.PREFILL if chunks else Phase.DECODE, Phase.DECODE)
    phase[-1] = Phase.DUMMY
    query = np.where(phase == Phase.PREFILL, draw.integers(1, 300, len(rank)), 1)
    context = draw.integers(0, 2000, len(rank))
    return Batch.of(ranks, rank, draw.integers(0, 500, len(rank)), query, context, phase, draw.random(len(rank)) < 0.8)


def by_graph(plan: StepPlan, batch: Batch) -> int:
    """The oracle."""
    return int(evaluate(lower(plan, (batch,)).graph, plan.fabric.capacity).task_end.max())


@pytest.mark.parametrize("name", CASES)
def test_a_refill_is_lower_and_evaluate_to_the_tick(name: str) -> None:
    plan = plan_of(name)
    refill = Refill(plan)
    for seed in range(3):
        batch = some_batch(plan, seed)
        values = refill.fill(batch)
        assert np.array_equal(values.lane_ps, lower(plan, (batch,)).graph.lane_ps)
        assert refill.play(values) == by_graph(plan, batch)


BESIDE = ("decode", "two_batch", "five_stage", "tutel", "scmoe", "replicas of a pool", "several groups, two nodes",
          "deepep_normal over two nodes", "replicated, width shared, in halves", "gathered")  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_a_refill_with_interference_is_evaluate_with_it_to_the_tick(name: str) -> None:
    plan = plan_of(name)
    slowed = replace(plan, interference=1.3)
    refill, longer = Refill(slowed), 0
    for seed in range(2):
        batch = some_batch(plan, seed)
        graph = lower(slowed, (batch,)).graph
        line = evaluate(graph, plan.fabric.capacity, speed=slowed.speed(graph))
        assert refill.play(refill.fill(batch)) == Pace(slowed).ps(batch) == line.task_end.max()
        longer += int(line.task_end.max()) - by_graph(plan, batch)
    assert longer >= 0 and (longer > 0 or not plan.exchanges)


@pytest.mark.parametrize("scenario", ["demo-tiny", "demo-qwen3", "qwen3-next-decode-ep8"])
def test_shipped_scenarios_are_paced_as_they_run(scenario: str) -> None:
    built = build(load(scenario), 0)
    timeline = evaluate(lower(built.plan, built.batches).graph, built.plan.fabric.capacity)
    assert Pace(built.plan).ps(built.batches[0]) == timeline.step_ps


def test_the_order_of_batches_changes_no_values() -> None:
    plan = plan_of("two_batch")
    batches = [some_batch(plan, seed) for seed in range(4)]
    refill = Refill(plan)
    forward = [refill.play(refill.fill(batch)) for batch in batches]
    backward = [refill.play(refill.fill(batch)) for batch in reversed(batches)]
    assert forward == backward[::-1] == [Refill(plan).play(Refill(plan).fill(batch)) for batch in batches]


def test_a_pace_that_always_looks_up_is_exact() -> None:
    plan = plan_of("decode")
    pace = Pace(plan)
    for seed in range(3):
        batch = some_batch(plan, seed)
        assert pace.ps(batch) == by_graph(plan, batch)
    assert (pace.counted.steps, pace.counted.lookups, pace.counted.renewed) == (3, 3, 0)


def test_renewals_are_counted_by_steps_and_say_how_far_off_they_were() -> None:
    plan = plan_of("decode")
    pace, exact = Pace(plan, renew_every=4), Pace(plan)
    batches = [some_batch(plan, seed, chunks=False) for seed in range(12)]
    assert len({shape_of(batch) for batch in batches}) == 1
    found = [pace.ps(batch) / exact.ps(batch) - 1 for batch in batches]
    assert (pace.counted.steps, pace.counted.lookups, pace.counted.renewed) == (12, 3, 2)
    assert found[0] == found[4] == found[8] == 0 and 0 < pace.counted.mean_correction < 0.1
    assert max(map(abs, found)) < 0.1


def test_batches_share_a_routing_only_where_their_prompts_are_on_the_same_ranks() -> None:
    rank, query = np.arange(8), np.ones(8, dtype=np.int64)
    shapes = set()
    for place in (0, 0, 5):
        phase = np.where(rank == place, Phase.PREFILL, Phase.DECODE)
        shapes.add(shape_of(Batch.of(8, rank, rank, np.where(rank == place, 300, query), 100, phase)))
    assert len(shapes) == 2


def test_where_steps_are_sums_a_kept_routing_follows_the_batch_in_all_else() -> None:
    """Contexts that grow leave the routing's part as it was: the same tokens after more context take as much longer as
    the whole step does with the same routing.
    """
    plan = plan_of("decode")
    pace, refill = Pace(plan, renew_every=9), Refill(plan)
    batch = some_batch(plan, 1, chunks=False)
    longer = Batch.of(
        batch.ranks, batch.rank, batch.request, batch.query, batch.context + 900, batch.phase, batch.emits
    )
    routed = refill.route(batch)
    assert refill.sums and pace.ps(batch) == refill.play(refill.fill(batch, routed)) == pace.ps(batch)
    assert pace.ps(longer) == pytest.approx(refill.play(refill.fill(longer, routed)), rel=0.01)
    assert pace.counted.lookups == 1 and pace.ps(longer) > pace.ps(batch)


@pytest.mark.parametrize("renew", [1, 5, 1 << 62])
@pytest.mark.parametrize("name", ["decode", "two nodes", "sampled", "two_batch", "tensor parallel"])
def test_stretches_played_at_once_are_the_steps_one_by_one(name: str, renew: int) -> None:
    """Ends, what is counted, what prices rested on: also across blocks of contexts that nobody has asked for yet."""
    plans = [plan_of(name) for _ in range(2)]
    batch = some_batch(plans[0], 2, chunks=False)
    grows = batch.phase == Phase.DECODE
    once, single = (Pace(plan, renew) for plan in plans)
    ends, now, one = [once.ps(batch)], single.ps(batch), batch
    found = [now]
    for most, horizon in ((150, 1 << 62), (40, now + 10 * ends[0]), (1, 1 << 62)):
        batch = batch.onward(grows)
        more = once.ends(batch, grows, ends[-1], horizon, most).tolist()
        batch, ends = batch.onward(grows * (len(more) - 1)), [*ends, *more]
        for number in range(most):
            if number and now >= horizon:
                break
            one = one.onward(grows)
            now += single.ps(one)
            found.append(now)
    assert found == ends and once.counted == single.counted
    logs = [plan.ops.log for plan in plans]
    assert logs[0].asked == logs[1].asked and logs[0].outside == logs[1].outside


def test_a_stretch_is_played_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kept routing and prices that are known, whatever the number of steps: no batch is asked for."""
    pace = Pace(plan_of("decode"), 1 << 62)
    batch = some_batch(pace.plan, 2, chunks=False)
    grows = batch.phase == Phase.DECODE
    first = pace.ends(batch, grows, 0, 1 << 62, 200)
    monkeypatch.setattr(Pace, "ps", None)
    assert np.array_equal(pace.ends(batch, grows, 0, 1 << 62, 200), first)


def test_what_experts_took_once_is_never_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of shapes, so that their table grows several times: all are known afterwards, and say the same."""
    prices = ExpertPrices(plan_of("decode").ops, 1.0)
    rows = np.random.default_rng(7).integers(0, 400, (200, 40, 16))
    first = [prices.ps(some) for some in rows]
    monkeypatch.setattr(ExpertPrices, "_priced", None)
    assert all(np.array_equal(prices.ps(some), ticks) for some, ticks in zip(rows, first, strict=True))


SCHEDULES = sorted(name for name, schedule in registry.items() if not schedule.trains)
DISPATCHES = sorted(
    name for name, ways in all_to_all.REGISTRY.items()
    if not ways.travels and not ways.replicates and name != "nvlink_domain"  # of more than one node
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_a_refill_of_any_plan_is_lower_and_evaluate_to_the_tick(seed: int) -> None:
    draw = random.Random(seed)
    nodes, tensor, expert = draw.choice((1, 2)), draw.choice((1, 2, 4)), draw.choice((1, 2, 4, 8))
    settings = [
        f"cluster.nodes={nodes}", f"comm.dispatch={draw.choice(DISPATCHES)}",
        parallel(tensor, 8 * nodes // tensor, expert * draw.choice((1, nodes))),
        f"overlap={{schedule: {draw.choice(SCHEDULES)}, shared_expert: {draw.choice(('true', 'false'))}}}",
    ]  # fmt: skip
    settings += draw.choice(([], ["routing={balanced: true}"], [POOL]))
    settings += draw.choice(([], [REPLICAS])) if expert == 8 else []
    plan = build(load("demo-tiny", (*TINY, *settings)), 0).plan
    batch = some_batch(plan, seed)
    refill = Refill(plan)
    assert refill.play(refill.fill(batch)) == by_graph(plan, batch), settings


def test_ranks_without_work_get_dummy_rows_and_join_every_exchange() -> None:
    for name in ("two_batch", "tensor and expert parallel"):
        plan = plan_of(name)
        ranks, cuts = plan.layout.world, plan.schedule.most_cuts
        few = Batch.of(
            ranks, [1, 1, 5], [3, 4, 5], [1, 40, 1], [10, 0, 99], [Phase.DECODE, Phase.PREFILL, Phase.DECODE]
        )
        full = few.padded(cuts)
        assert full.tokens == few.tokens and full.tokens_of_rank.min() == cuts
        assert Pace(plan).ps(few) == Pace(plan).ps(full) == by_graph(plan, full)
        nobody = Batch.of(ranks, [], [], [], [], []).padded(cuts)
        assert Pace(plan).ps(nobody) == by_graph(plan, nobody)


@pytest.mark.parametrize("dispatch", ["nccl", "hierarchical_2d", "deepep_low_latency"])
def test_gpus_that_share_a_port_are_paced_by_its_messages(dispatch: str, tmp_path: Path) -> None:
    text = known_topologies()["dgx-h100"].read_text().replace("  gpus: 8\n", "  gpus: 8\n  nics: 2\n")
    (tmp_path / "two.yaml").write_text(text)
    overrides = (*TINY, *WIDE, f"cluster.topology={tmp_path / 'two.yaml'}", f"comm.dispatch={dispatch}")
    plan = build(load("demo-tiny", overrides), 0).plan
    batch = some_batch(plan, 1)
    assert Pace(plan).ps(batch) == by_graph(plan, batch)


@pytest.mark.parametrize("degrees", [(16, 1, 1), (8, 2, 16), (8, 2, 1)])
def test_tensor_groups_of_a_real_model_are_paced_as_they_run(degrees: tuple[int, int, int]) -> None:
    plan = build(load("demo-qwen3", ("batch.tokens_per_gpu=4", *NODES, parallel(*degrees))), 0).plan
    for seed in range(2):
        batch = some_batch(plan, seed)
        assert Pace(plan).ps(batch) == by_graph(plan, batch)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("comm.dispatch=exflow",), "tokens travel with exflow"),
        (("batch={phase: train, tokens_per_gpu: 128, context: 64}", "comm.dispatch=nccl"), "a training step"),
        (("routing={router: expert_choice, generator: {}}",), "a router decides"),
    ],
)
def test_what_a_refill_cannot_do_is_refused_and_says_so(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(BadInput, match=f"lowered one by one: {reason}"):
        Refill(build(load("demo-tiny", (*TINY, *overrides)), 0).plan)


@pytest.mark.parametrize("degrees", [(4, 1, 1), (4, 2, 1)])
def test_a_model_without_experts_is_paced(degrees: tuple[int, int, int]) -> None:
    plan = build(load("llama3-decode-tp4", (parallel(*degrees), "batch.tokens_per_gpu=8")), 0).plan
    batch = some_batch(plan, 1)
    assert Pace(plan).ps(batch) == by_graph(plan, batch)


@pytest.mark.parametrize("name", ["decode", "two_batch"])
@pytest.mark.parametrize("renew", [1, 3, 1000])
def test_batches_that_go_on_are_paced_as_new_ones(name: str, renew: int) -> None:
    """What is kept from one step of the same decodes to the next changes no tick."""
    plan = plan_of(name)
    kept, fresh = Pace(plan, renew), Pace(plan, renew)
    batch = Batch.of(8, np.arange(12) % 8, np.arange(12), 1, np.arange(12) * 7, Phase.DECODE)
    for step in range(6):
        again = Batch.of(8, batch.rank, batch.request, 1, batch.context, Phase.DECODE)
        assert kept.ps(batch) == fresh.ps(again), step
        batch = batch.onward(np.ones(12, dtype=np.int64))
