"""A filled skeleton is `lower` through `evaluate`, to the tick; a Pace counts what it looks up."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.step import Batch, Phase, StepPlan, lower
from moesim.step.fill import Refill
from moesim.step.pace import Pace, shape_of
from moesim.studies import load
from moesim.studies.build import build

TINY = ("batch.tokens_per_gpu=8",)
CASES = {
    "decode": TINY,
    "two_batch": (*TINY, "overlap.schedule=two_batch"),
    "nccl": (*TINY, "comm.dispatch=nccl"),
    "two nodes": (
        *TINY, "cluster.nodes=2", "parallel.data_parallel_size=16", "parallel.expert_parallel_size=16",
    ),
    "sampled": (*TINY, "routing={sampled: decode_in2000out100}"),
    "replicas": (*TINY, "experts={redundant: 8, placement: greedy}"),
    "replicas of a pool": (
        *TINY, "experts={redundant: 24, placement: greedy}", "routing={sampled: decode_in2000out100}",
        "overlap.schedule=two_batch",
    ),
    "alone": (*TINY, "parallel={data_parallel_size: 1, expert_parallel_size: 1}"),
}  # fmt: skip


def plan_of(name: str) -> StepPlan:
    return build(load("demo-tiny", CASES[name]), 0).plan


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


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("comm.dispatch=deepep_normal",), "deepep_normal forwards"),
        (("parallel={tensor_parallel_size: 2, data_parallel_size: 4, expert_parallel_size: 8}",), "tensor parallelism"),
        (("parallel={data_parallel_size: 8, expert_parallel_size: 4}",), "several expert-parallel groups"),
    ],
)
def test_what_a_refill_cannot_do_is_refused_and_says_so(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(BadInput, match=f"lowered one by one: {reason}"):
        Refill(build(load("demo-tiny", (*TINY, *overrides)), 0).plan)
