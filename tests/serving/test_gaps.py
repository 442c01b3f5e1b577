"""Gaps between tokens are counted as a dictionary would count them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from moesim.serving.gaps import tallied


@pytest.mark.parametrize(("longest", "most"), [(50, 5), (1 << 40, 1 << 20), (1 << 58, 1000), (1, 1 << 30)])
def test_each_gap_once_with_all_that_had_it(longest: int, most: int) -> None:
    """Counts that do not fit beside long gaps are divided, and come together again."""
    random = np.random.default_rng(longest % 97)
    gaps = [random.integers(0, longest, n) for n in (0, 1, 40, 200)]
    counts = [random.integers(1, most, len(one)).astype(np.int32) for one in gaps]
    expected: Counter[int] = Counter()
    for values, many in zip(gaps, counts, strict=True):
        for value, one in zip(values.tolist(), many.tolist(), strict=True):
            expected[value] += one
    found = tallied(lambda: zip(gaps, counts, strict=True))
    assert dict(zip(*(column.tolist() for column in found), strict=True)) == expected
    assert found[0].tolist() == sorted(expected)


def test_nothing_has_no_gaps() -> None:
    assert [len(column) for column in tallied(list)] == [0, 0]
