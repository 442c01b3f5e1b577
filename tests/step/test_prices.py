"""What experts take is kept by shape: found again, and priced together with what is near, it is what they take."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from moesim.step.prices import BITS, TOGETHER, UNKNOWN, ExpertPrices, around
from moesim.studies import load
from moesim.studies.build import build
from moesim.units import to_ps

LARGEST = (1 << BITS[2]) - 1  # rows of one expert that are kept


def near(shapes: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Squares of totals and most rows around each, as large as there is room for, of what slots can hold."""
    width = max(one for one in (1, 2, 4, 8, 16) if one * one * len(shapes) <= TOGETHER or one == 1)
    found = set(shapes)
    for total, active, most, filled in shapes:
        squares = (range(number // width * width, number // width * width + width) for number in (total, most))
        for other, high in itertools.product(*squares):
            if other <= total + filled and high <= other <= active * high and not high >> BITS[2]:
                found.add((other, active, high, total + filled - other))
    return found


@pytest.mark.parametrize("many", [0, 1, 7, 60, 300])
def test_what_is_new_is_wanted_once_with_what_is_near(many: int) -> None:
    random = np.random.default_rng(many)
    rows = random.poisson(3, (many, 16))
    shapes = np.stack((rows.sum(1), (rows > 0).sum(1), rows.max(1), (-rows % 8).sum(1)), axis=1).astype(np.int64)
    shapes = np.concatenate((shapes, shapes[: many // 2], [[8, 1, LARGEST + 1, 0]]))
    found = np.where(random.random(len(shapes)) < 0.2, 5, UNKNOWN)
    wanted = np.empty((len(shapes) + TOGETHER, 4), dtype=np.int64)
    told = wanted[: around(shapes, found, wanted, np.zeros(1 << 12, dtype=np.int64))].tolist()
    asked = {tuple(one) for one in shapes[(found == UNKNOWN) & (shapes[:, 2] <= LARGEST)].tolist()}
    assert sorted(map(tuple, told)) == sorted(near(asked))


def test_kept_or_too_large_to_be_experts_take_what_they_take() -> None:
    ops = build(load("qwen3-prefill-ep16"), 0).plan.ops
    random = np.random.default_rng(0)
    rows = random.poisson(40, (200, 16)) * (random.random((200, 16)) < 0.7)
    rows[-3:, 0] = LARGEST + np.arange(3)
    prices, expected = ExpertPrices(ops, 1.25), to_ps(ops.experts(rows, False).stretched(1.25).total)
    for few in (rows[:1], rows[:30], rows, rows):
        np.testing.assert_array_equal(prices.ps(few), expected[: len(few)])
