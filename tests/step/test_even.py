"""Balanced rows keep what there is to do, and no spread of it is better."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from moesim.engine import evaluate
from moesim.step import lower
from moesim.step.even import even_rows
from moesim.studies import load
from moesim.studies.build import build

ROWS = arrays.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 9))


@given(ROWS)
def test_the_rows_and_the_slots_reached_stay_as_many(rows: np.ndarray) -> None:
    even = even_rows(rows)
    assert even.sum() == rows.sum() and np.count_nonzero(even) == np.count_nonzero(rows)


@given(ROWS)
def test_no_rank_has_more_than_the_even_share(rows: np.ndarray) -> None:
    even, ranks, reached = even_rows(rows), len(rows), np.count_nonzero(rows)
    assert np.count_nonzero(even, axis=1).max() == math.ceil(reached / ranks)
    if reached:
        assert even.sum(axis=1).max() == math.ceil(rows.sum() / min(ranks, reached))


def test_rows_by_hand() -> None:
    # 7 rows on 3 of 4 slots, 2 ranks: ranks get 4 and 3 rows, 2 slots and 1
    assert even_rows(np.array([[5, 1], [0, 1]])).tolist() == [[2, 2], [3, 0]]


@pytest.mark.parametrize("tokens", [1, 64])
def test_no_lane_is_longer_balanced_than_real(tokens: int) -> None:
    built = build(load("demo-tiny", [f"batch.tokens_per_gpu={tokens}"]), seed=0)
    lowered = lower(built.plan, built.batches)
    for draw in ({}, {"grouped_gemm": 3.0, "attention": 0.2}):
        balanced, real = (lowered.play_as(draw, balanced=kind) for kind in (True, False))
        assert np.all(balanced.lane_seconds <= real.lane_seconds)
        ends = [evaluate(graph, built.plan.fabric.capacity, network="none").step_ps for graph in (balanced, real)]
        assert ends[0] < ends[1]
