"""Batches, and where their tokens go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.step import Batch, Phase, uniform_batch
from moesim.step.traffic import traffic

NODES = np.array([0, 0, 1, 1], dtype=np.int32)


def some_placement(rng: np.random.Generator, ranks: int) -> Placement:
    """One layer, 8 experts, four of them twice."""
    experts = rng.permutation(np.r_[np.arange(8), rng.permutation(8)[:4]]).astype(np.int32)
    owner = np.repeat(np.arange(ranks, dtype=np.int32), 12 // ranks)
    return Placement(experts[None], owner[None], 8, ranks)


def test_decode_brings_one_token_per_request_at_its_context() -> None:
    batch = uniform_batch("decode", 2, 3, 100)
    assert batch.token_rank.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.token_position.tolist() == [100] * 6 and len(set(batch.token_request.tolist())) == 6


def test_prefill_brings_whole_prompts() -> None:
    batch = uniform_batch("prefill", 1, 6, 3, first_request=7)
    assert batch.token_request.tolist() == [7, 7, 7, 8, 8, 8]
    assert batch.token_position.tolist() == [0, 1, 2, 0, 1, 2]


def test_sequences_that_do_not_fill_a_rank_name_the_nearest_number() -> None:
    with pytest.raises(BadInput, match="batch.tokens_per_gpu: 10 tokens a GPU are not whole sequences of 4. Try: 8"):
        uniform_batch("prefill", 1, 10, 4)


def test_halves_hold_every_sequence_once() -> None:
    batch = uniform_batch("decode", 2, 5, 10)
    halves = batch.split(2)
    assert sorted(np.concatenate([half.request for half in halves]).tolist()) == batch.request.tolist()
    assert [half.tokens_of_rank.tolist() for half in halves] == [[3, 3], [2, 2]]


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 1000))
def test_rows_and_copies_account_for_every_choice(top_k: int, tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = uniform_batch("decode", 4, tokens, 10)
    experts = np.stack([rng.permutation(8)[:top_k] for _ in range(batch.tokens)]).astype(np.uint16)
    placement = some_placement(rng, 4)
    found = traffic(experts, batch, placement, 0, NODES)
    assert found.rows.sum() == found.load.sum() == found.copies.pairs.sum() == batch.tokens * top_k
    by_rank = np.bincount(placement.slot_rank[0], found.rows, minlength=4)
    assert np.array_equal(by_rank, found.copies.pairs.sum(axis=0))
    assert np.all(found.copies.nodes.sum(axis=1) <= found.copies.devices.sum(axis=1))
    assert np.all(found.copies.devices <= found.copies.pairs)
    experts_of_slots = np.bincount(placement.slot_expert[0], found.rows, minlength=8)
    assert np.array_equal(experts_of_slots, found.load)


@given(st.permutations(range(12)))
def test_the_order_of_tokens_does_not_matter(order: list[int]) -> None:
    batch = uniform_batch("decode", 1, 12, 10)
    rng = np.random.default_rng(0)
    experts = np.stack([rng.permutation(8)[:2] for _ in range(12)]).astype(np.uint16)
    placement = some_placement(rng, 1)
    mixed = replace(batch, request=batch.request[order])
    one = traffic(experts, batch, placement, 0, NODES[:1])
    other = traffic(experts[order], mixed, placement, 0, NODES[:1])
    assert np.array_equal(one.rows, other.rows)


def test_permuting_experts_in_routing_and_placement_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    batch = uniform_batch("decode", 4, 16, 10)
    experts = np.stack([rng.permutation(8)[:3] for _ in range(64)]).astype(np.uint16)
    rename = rng.permutation(8).astype(np.uint16)
    placement = Placement.contiguous(1, 8, 4)
    renamed = Placement(rename[placement.slot_expert].astype(np.int32), placement.slot_rank, 8, 4)
    one = traffic(experts, batch, placement, 0, NODES)
    other = traffic(rename[experts], batch, renamed, 0, NODES)
    assert np.array_equal(one.rows, other.rows) and np.array_equal(one.copies.pairs, other.copies.pairs)


def test_a_batch_takes_over_what_is_known_of_one_that_differs_in_contexts_alone() -> None:
    last = uniform_batch("decode", 4, 8, 100)
    last.memo["asked before"] = True
    longer = Batch.of(4, last.rank, last.request, 1, last.context + 7, Phase.DECODE)
    taken = longer.following(last)
    assert taken.memo is last.memo
    assert np.array_equal(taken.context, last.context + 7)
    for other in (replace(longer, emits=~longer.emits), longer.for_training(), uniform_batch("decode", 4, 9, 100)):
        assert other.following(last) is other
