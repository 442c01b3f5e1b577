"""Steps by tables are within 1 % of the Pace that the tables were made from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.serving.tabled import Tabled
from moesim.step import Batch, Phase, lower
from moesim.step.pace import Pace
from moesim.studies import load
from moesim.studies.build import build

WIDTHS = "{tensor_parallel_size: 4, data_parallel_size: 1, expert_parallel_size: 1}"
ALL_IN_ONE = (f"parallel={WIDTHS}", "comm.dispatch=nccl",
              "routing={sampled: decode_in2000out100}", "batch.tokens_per_gpu=8")  # fmt: skip

APART = "{tensor_parallel_size: 1, data_parallel_size: 4, expert_parallel_size: 4}"
EACH_ITS_OWN = (f"parallel={APART}", "comm.dispatch=allgather_reducescatter", *ALL_IN_ONE[2:])


@pytest.fixture(scope="module")
def tabled() -> Tabled:
    plan = replace(build(load("demo-qwen3", ALL_IN_ONE), 0).plan, host_seconds=3e-4)
    return Tabled(plan, Pace(plan))


@pytest.fixture(scope="module")
def apart() -> Tabled:
    """Each rank attends to its own requests."""
    plan = replace(build(load("demo-qwen3", EACH_ITS_OWN), 0).plan, host_seconds=3e-4)
    return Tabled(plan, Pace(plan))


@pytest.mark.parametrize("rows", [4, 13, 60, 200])
def test_decodes_of_ranks_that_wait_for_each_other_are_within_two_percent(apart: Tabled, rows: int) -> None:
    """Requests are on random ranks: some have many more than others."""
    draw = np.random.default_rng(rows)
    batch = Batch.of(4, draw.integers(0, 4, rows), np.arange(rows), 1, draw.integers(100, 5000, rows), Phase.DECODE)
    assert apart.ps(batch) == pytest.approx(apart.pace.ps(batch), rel=0.02)


def test_a_rank_that_has_a_prompt_is_waited_for(apart: Tabled) -> None:
    """Within 10 %: exchanges are those of tokens that are spread evenly."""
    alone = Batch.of(4, [0, 1, 2, 3], [0, 1, 2, 3], [1, 900, 1, 1], 500, [0, 1, 0, 0])
    even = Batch.of(4, [0, 1, 2, 3], [0, 1, 2, 3], 225, 500, Phase.PREFILL)
    assert apart.ps(alone) > apart.ps(even)
    for batch in (alone, even):
        assert apart.ps(batch) == pytest.approx(apart.pace.ps(batch), rel=0.1)


def decodes(context: np.ndarray) -> Batch:
    n = len(context)
    return Batch.of(4, np.arange(n) % 4, np.arange(n), 1, context, Phase.DECODE)


@pytest.mark.parametrize("rows", [4, 13, 60, 200])
def test_decodes_are_within_one_percent(tabled: Tabled, rows: int) -> None:
    batch = decodes(np.random.default_rng(rows).integers(100, 5000, rows))
    assert tabled.ps(batch) == pytest.approx(tabled.pace.ps(batch), rel=0.01)


@pytest.mark.parametrize("prompts", [[900] * 4, [3000, 70, 600, 1234, 88]])
def test_prompts_are_within_a_few_percent(tabled: Tabled, prompts: list[int]) -> None:
    n = len(prompts)
    batch = Batch.of(4, np.arange(n) % 4, np.arange(n), prompts, 0, Phase.PREFILL)
    assert tabled.ps(batch) == pytest.approx(tabled.pace.ps(batch), rel=0.03)


def test_chunks_cost_what_they_add_to_their_prompt(tabled: Tabled) -> None:
    batch = Batch.of(4, [0, 1, 2, 3], [0, 1, 2, 3], [900, 2000, 64, 700], [4000, 2000, 900, 0], Phase.PREFILL)
    assert tabled.ps(batch) == pytest.approx(tabled.pace.ps(batch), rel=0.03)


def test_the_order_of_rows_does_not_matter(tabled: Tabled) -> None:
    context = np.random.default_rng(1).integers(100, 900, 21)
    assert tabled.ps(decodes(context)) == tabled.ps(decodes(context[::-1]))


def test_tables_grow_with_the_context(tabled: Tabled) -> None:
    """What was priced for short contexts holds after a long one came."""
    before = tabled.ps(decodes(np.arange(100, 117)))
    assert tabled.ps(decodes(np.array([40000]))) == pytest.approx(tabled.pace.ps(decodes(np.array([40000]))), rel=0.01)
    assert tabled.ps(decodes(np.arange(100, 117))) == before


def test_groups_that_share_attention_beside_each_other_are_refused() -> None:
    two = "parallel={tensor_parallel_size: 2, data_parallel_size: 4, expert_parallel_size: 8}"
    plan = build(load("demo-tiny", (two, "batch.tokens_per_gpu=8")), 0).plan
    with pytest.raises(BadInput, match="sums only"):
        Tabled(plan, Pace(plan))


def test_ranks_that_have_all_tokens_exchange_none() -> None:
    """Experts on 4 ranks of one tensor group, tokens on all of them: two all-reduces a layer, to the tick of lower."""
    spread_out = "parallel={tensor_parallel_size: 4, data_parallel_size: 1, expert_parallel_size: 4}"
    plan = build(load("demo-tiny", (spread_out, "batch.tokens_per_gpu=8", "comm.dispatch=nccl")), 0).plan
    whole = replace(plan, ops=replace(plan.ops, spread=replace(plan.ops.spread, residual="replicated")))
    batch = decodes(np.arange(100, 117))
    graph = lower(whole, (batch,)).graph
    assert Pace(whole).ps(batch) == evaluate(graph, whole.fabric.capacity).task_end.max()
    names = [name for name, coflow in zip(graph.name, graph.coflow, strict=True) if coflow >= 0]
    assert names.count("all_reduce") == 2 * plan.model.num_layers and "dispatch" not in names
    assert lower(plan, (batch,)).load.tolist() == lower(whole, (batch,)).load.tolist()
