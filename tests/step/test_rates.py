"""What compiled loops add up of a step, against sums by hand: shares of rows, and what was outside of measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.compiled import njit
from moesim.step.cores import BLOCK_BITS, CONTEXT_BITS
from moesim.step.rates import FEWEST, QUERY_BITS, UNKNOWN, Rates, decoded, of_rank, prefilled, put

BLOCK = 1 << BLOCK_BITS


@njit
def decoded_of(rates: Any, contexts: Any, many: Any, ahead: Any, counted: Any) -> Any:
    return decoded(rates, contexts, many, ahead, counted)


@njit
def prefilled_of(rates: Any, chunks: Any, many: Any, counted: Any) -> Any:
    return prefilled(rates, chunks, many, counted)


@njit
def ps_of(rates: Any, tokens: Any, emits: Any, core: Any) -> Any:
    return of_rank(rates, tokens, emits, core)


def rates() -> Rates:
    """Of four decoded rows together a context of c takes c us, odd ones were not measured; two blocks are known."""
    places = np.full((5, 3), -1, dtype=np.int32)
    places[4, 1:] = [0, 1]
    context = np.arange(BLOCK, 3 * BLOCK)
    cells = np.stack((context * 1e-6, context % 2.0), axis=1).reshape(2, BLOCK, 2)
    around = np.array([[[0, 1e-6, 2e-6], [0, 3e-6, 5e-6]], [[0, 7e-6, 11e-6], [0, 13e-6, 17e-6]]])
    fixed, head = np.array([UNKNOWN, 100, 200]), np.array([0, 10])
    keys, prompts = np.zeros(FEWEST, dtype=np.int64), np.zeros((FEWEST, 2))
    return Rates(fixed, head, around, 1, 1.5, 3, places, cells, keys, prompts)


@pytest.mark.parametrize(("ahead", "outside"), [(0, 1), (1, 2)])
def test_each_decoded_row_takes_its_share_of_so_many_alike_and_each_length_is_counted_once(
    ahead: int, outside: int
) -> None:
    counted, contexts = np.zeros(2, dtype=np.int64), np.array([BLOCK, BLOCK, BLOCK + 1, 2 * BLOCK, 0])
    mean = (2 * BLOCK + BLOCK + 1 + 2 * BLOCK) / 4 + ahead
    assert decoded_of(rates(), contexts, 4, ahead, counted) == pytest.approx(mean * 1e-6)
    assert counted.tolist() == [3, outside]
    for unknown, many in ((np.full(4, BLOCK - 1), 4), (np.full(4, 3 * BLOCK), 4), (np.full(3, BLOCK), 3)):
        assert decoded_of(rates(), unknown, many, 0, counted) == UNKNOWN


def test_chunks_of_prompts_take_their_shares_too() -> None:
    """Three of a group: two of 100 tokens after 7, which take 30 us each, and one of 200 after none, outside: 60 us."""
    known, counted = rates(), np.zeros(2, dtype=np.int64)
    chunks = np.array([100 << CONTEXT_BITS | 7, 100 << CONTEXT_BITS | 7, 200 << CONTEXT_BITS])
    keys = 3 << (QUERY_BITS + CONTEXT_BITS) | chunks[1:]
    put(known.keys, known.prompts, keys, np.array([[30e-6, 0.0], [60e-6, 1.0]]))
    assert prefilled_of(known, chunks, 3, counted) == pytest.approx((30 + 30 + 60) / 3 * 1e-6)
    assert counted.tolist() == [2, 1]
    assert prefilled_of(known, chunks, 2, counted) == UNKNOWN  # of groups of two nobody knows


def test_a_rank_takes_its_layers_what_is_fixed_and_its_head() -> None:
    """Three layers at 1.5 times of (1 + 7) + (3 + 20 of the core + 13) us; 100 ps fixed, 10 ps of the head."""
    assert ps_of(rates(), 1, 1, 20e-6) == 3 * 66_000_000 + 100 + 10
    for tokens, emits in ((0, 1), (3, 1), (1, 2)):
        assert ps_of(rates(), tokens, emits, 20e-6) == UNKNOWN
