"""Batches of rows of any phase: parts add up, rows are priced one by one, a mean goes through no price."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import BadInput
from moesim.step import Batch, LayerOps, Phase, uniform_batch
from moesim.studies import load
from moesim.studies.build import build


@pytest.fixture(scope="module")
def ops() -> LayerOps:
    """Qwen3-30B-A3B on eight H100."""
    return build(load("demo-qwen3", ("routing={balanced: true}",)), 0).plan.ops


def core_of(ops: LayerOps, *rows: tuple[int, int, Phase]) -> float:
    """Seconds of the attention core of one rank with these (query, context, phase)."""
    query, context, phase = (np.array(column) for column in zip(*rows, strict=True))
    ranks = ops.spread.tensor
    batch = Batch.of(ranks, 0, np.arange(len(rows)), query, context, phase)
    return float(np.asarray(ops.core(batch).total)[0])


def random_batch(seed: int, ranks: int = 4, rows: int = 30) -> Batch:
    draw = np.random.default_rng(seed)
    phase = draw.integers(0, 3, rows)
    query = np.where(phase == Phase.PREFILL, draw.integers(1, 200, rows), 1)
    return Batch.of(
        ranks, draw.integers(0, ranks, rows), np.arange(rows), query, draw.integers(0, 900, rows), phase,
        draw.random(rows) < 0.5,
    )  # fmt: skip


def test_a_mixed_batch_costs_what_its_decodes_and_its_chunk_cost_alone(ops: LayerOps) -> None:
    decodes = [(1, 2048, Phase.DECODE)] * 64
    chunk = (512, 1024, Phase.PREFILL)
    together = core_of(ops, *decodes, chunk)
    assert together == core_of(ops, *decodes) + core_of(ops, chunk)


def test_an_even_batch_costs_what_the_table_says(ops: LayerOps) -> None:
    asked = ops.costs.attention("decode", 1, 2048, 48, ops.model.attention, ops.model.attention.num_heads, "bf16")
    assert core_of(ops, *[(1, 2048, Phase.DECODE)] * 48) == pytest.approx(float(asked.seconds), rel=1e-12)


def test_prompts_of_many_lengths_cost_the_sum_over_them_not_what_their_mean_costs(ops: LayerOps) -> None:
    """Attention is convex in length: 1,000 and 7,000 tokens see 25 M pairs, twice 4,000 see 16 M."""
    uneven = core_of(ops, (1000, 0, Phase.PREFILL), (7000, 0, Phase.PREFILL))
    even = core_of(ops, (4000, 0, Phase.PREFILL), (4000, 0, Phase.PREFILL))
    halves = [core_of(ops, *[(length, 0, Phase.PREFILL)] * 2) / 2 for length in (1000, 7000)]
    assert uneven == pytest.approx(sum(halves), rel=1e-12) and uneven > 1.3 * even


def test_no_prefill_rows_make_a_decode_batch(ops: LayerOps) -> None:
    decode = uniform_batch("decode", 8, 16, 700)
    same = Batch.of(8, decode.rank, decode.request, 1, 700, Phase.DECODE)
    assert np.array_equal(np.asarray(ops.attention(decode).total), np.asarray(ops.attention(same).total))


@given(st.integers(0, 500), st.integers(1, 5))
def test_rows_and_tokens_of_parts_sum_to_the_batchs(seed: int, parts: int) -> None:
    batch = random_batch(seed)
    cut = batch.split(parts)
    assert np.array_equal(sum(part.tokens_of_rank for part in cut), batch.tokens_of_rank)
    assert np.array_equal(sum(part.head_rows for part in cut), batch.head_rows)
    found = sorted(t for p in cut for t in zip(p.token_rank, p.token_request, p.token_position, strict=True))
    assert found == sorted(zip(batch.token_rank, batch.token_request, batch.token_position, strict=True))
    sizes = np.array([part.tokens_of_rank for part in cut])
    assert np.all(sizes.max(axis=0) - sizes.min(axis=0) <= 1)


def test_dummies_are_computed_and_nothing_else(ops: LayerOps) -> None:
    idle = Batch.of(8, [0, 3], [5, 6], [1, 4], [10, 0], [Phase.DECODE, Phase.DUMMY])
    assert idle.tokens == 1 and idle.token_request.tolist() == [5]
    assert idle.tokens_of_rank.tolist() == [1, 0, 0, 4, 0, 0, 0, 0] and idle.head_rows.tolist() == [1] + [0] * 7
    seconds = np.asarray(ops.core(idle).total)
    assert seconds[0] > 0 and not seconds[1:].any()
    assert np.asarray(ops.attention(idle).total)[3] > 0


def test_a_chunk_that_does_not_end_its_prompt_needs_no_head() -> None:
    rows = Batch.of(1, 0, [1, 2, 3], [512, 1, 100], [0, 9, 412], [1, 0, 1], [False, True, True])
    assert rows.head_rows.tolist() == [2]
    assert replace(rows, training=True).head_rows.tolist() == [613]


@pytest.mark.parametrize(
    ("rank", "query", "context", "message"),
    [(2, 1, 0, "on rank 2 of 2"), (-1, 1, 0, "on rank -1"), (0, 2, 5, "one new token"), (0, 1, -1, "after 0 or more")],
)
def test_rows_that_cannot_be_are_refused(rank: int, query: int, context: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Batch.of(2, rank, 0, query, context, Phase.DECODE)
