"""Links that can be full: by hand, and the same ends of flows without the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.network.fluid import finish_times
from moesim.network.narrow import can_fill, narrowed

PADDED = np.array([[0, 2, 3], [1, 2, 4], [0, 3, -1]], dtype=np.int32)


@pytest.mark.parametrize(("trunk", "fills"), [(19.0, True), (20.0, True), (21.0, False)])
def test_a_trunk_is_full_only_where_those_before_it_let_enough_through(trunk: float, fills: bool) -> None:
    """Links 0 and 1 of 10 B/s each lead into link 2, behind which wide links lead to link 3 or 4."""
    capacity = np.array([10.0, 10.0, trunk, 90.0, 90.0])
    assert can_fill(capacity, [PADDED[:2]]).tolist() == [True, True, fills, False, False]
    mirrored = np.ascontiguousarray(PADDED[:2, ::-1])
    assert can_fill(capacity, [mirrored]).tolist() == [True, True, fills, False, False]


def test_a_link_that_some_path_begins_or_ends_at_is_judged_by_its_other_side() -> None:
    capacity = np.array([10.0, 10.0, 30.0, 5.0])
    begins = np.array([[0, 2, 3], [1, 2, 3], [2, 3, -1]], dtype=np.int32)
    assert can_fill(capacity, [begins]).tolist() == [True, True, False, True]  # 30 > 5 behind it
    alone = np.array([[0, 2], [1, 2], [2, -1]], dtype=np.int32)
    assert can_fill(capacity, [alone])[2]


def test_all_coflows_count_and_equal_pairs_count_once() -> None:
    capacity = np.array([10.0, 10.0, 15.0, 99.0])
    one, other = np.array([[0, 2]] * 700, dtype=np.int32), np.array([[1, 2]] * 700, dtype=np.int32)
    assert can_fill(capacity, [one, one]).tolist() == [True, False, False, False]
    assert can_fill(capacity, [one, other]).tolist() == [True, True, True, False]


def test_paths_keep_their_order_without_links_that_stay_out() -> None:
    number = np.array([0, 1, -1, 2, -1], dtype=np.int32)
    assert narrowed(PADDED, number).tolist() == [[0, 2], [1, -1], [0, 2]]
    assert narrowed(PADDED[:0], number).shape == (0, 1)


@st.composite
def trees(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flows up a port and a trunk and down again: links 0-5 ports out, 6-8 up, 9-11 down, 12-17 ports in."""
    ports = draw(st.lists(st.integers(1, 20), min_size=12, max_size=12))
    trunks = draw(st.lists(st.integers(1, 60), min_size=6, max_size=6))
    capacity = np.array([*ports[:6], *trunks, *ports[6:]], dtype=np.float64)
    pairs = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25))
    path = np.array([[a, 6 + a // 2, 9 + b // 2, 12 + b] for a, b in pairs], dtype=np.int32)
    return capacity, path, np.array(draw(st.lists(st.integers(1, 999), min_size=len(pairs), max_size=len(pairs))))


@settings(max_examples=150, deadline=None)
@given(trees())
def test_no_flow_ends_at_another_time(tree: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    capacity, path, size = tree
    start = np.asarray(np.arange(len(size)) * 0.7, dtype=np.float64)
    kept = can_fill(capacity, [path])
    short = narrowed(path, np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32))
    there = short >= 0
    ptr = np.concatenate(([0], np.cumsum(there.sum(axis=1))))
    full = finish_times(capacity, np.arange(0, 4 * len(size) + 1, 4), path.ravel(), size, start)
    assert finish_times(capacity[kept], ptr, short[there], size, start) == pytest.approx(full, rel=1e-9)
