"""The table of experts' prices against a dict: shapes counted plainly, and nothing forgotten where it grows."""

from __future__ import annotations

import numpy as np

from moesim.step.prices import find, grown, keep

TILE = 16
ROWS = np.random.default_rng(7).integers(0, 40, (500, 6)) * np.random.default_rng(8).integers(0, 2, (500, 6))


def plain(row: list[int]) -> tuple[int, ...]:
    """All rows, active slots, most rows of one, rows that fill up tiles of sixteen."""
    return sum(row), sum(size > 0 for size in row), max(row), sum(-size % TILE for size in row)


def test_a_table_that_grows_forgets_nothing_and_invents_nothing() -> None:
    kept, shapes, found = np.zeros((2048, 2), np.int64), np.empty((500, 4), np.int64), np.empty(500, np.int64)
    price = {plain(row): 1000 + number for number, row in enumerate(ROWS[:400].tolist())}
    assert find(ROWS, TILE, kept, shapes, found) == 500 and set(found) == {-1}
    assert [tuple(shape) for shape in shapes.tolist()] == [plain(row) for row in ROWS.tolist()]
    assert keep(np.array(list(price)), np.array(list(price.values())), kept) == len(price)
    expected = [price.get(plain(row), -1) for row in ROWS.tolist()]
    for table in (kept, grown(kept), grown(grown(kept))):
        assert find(ROWS, TILE, table, shapes, found) == expected.count(-1) > 0
        assert found.tolist() == expected and np.count_nonzero(table[:, 0]) == len(price)


def test_what_is_kept_twice_is_new_once_and_what_is_too_large_is_never_found() -> None:
    kept, shape = np.zeros((64, 2), np.int64), np.array([[9, 2, 5, 23]])
    assert [keep(shape, np.array([ticks]), kept) for ticks in (7, 8)] == [1, 0]
    found, rows = np.empty(2, np.int64), np.array([[5, 4], [1 << 22, 0]])
    assert find(rows, TILE, kept, np.empty((2, 4), np.int64), found) == 1 and found.tolist() == [8, -1]
