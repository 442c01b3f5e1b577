"""Start-ups of collectives against tables that are written out here."""

from __future__ import annotations

import pytest

from moesim.costs.communication import CommunicationCost, Steps

US = 1e-6
TABLES = tuple(Steps("all_gather", ranks, (100.0, 300.0), (ranks * US, 3 * ranks * US)) for ranks in (2, 8, 4))
COST = CommunicationCost(alpha=50 * US, per_message=1 * US, steps=TABLES)


@pytest.mark.parametrize(
    ("ranks", "messages", "table", "more"),
    [
        (2, 1, 2, 0),  # a table for exactly so many ranks is that group's
        (4, 3, 4, 0),
        (3, 2, 4, 0),  # else that of the next larger group
        (5, 4, 8, 0),
        (8, 7, 8, 0),
        (16, 15, 8, 15 - 7),  # beyond the largest: 8/16 of the 15 messages are in its table
    ],
)
def test_the_table_of_a_group(ranks: int, messages: int, table: int, more: int) -> None:
    assert COST.startup("all_gather", ranks, messages, 100.0) == pytest.approx((table + more) * US)


@pytest.mark.parametrize(("sent", "alpha"), [(0.0, 4), (100.0, 4), (200.0, 8), (300.0, 12), (400.0, 16)])
def test_lines_between_the_sizes_of_a_table(sent: float, alpha: float) -> None:
    assert COST.startup("all_gather", 4, 3, sent) == pytest.approx(alpha * US)


def test_a_falling_table_never_becomes_negative() -> None:
    falling = CommunicationCost(0.0, steps=(Steps("all_gather", 4, (100.0, 200.0), (4 * US, 1 * US)),))
    assert falling.startup("all_gather", 4, 3, 1000.0) == 0.0


def test_without_a_table_messages_follow_each_other() -> None:
    assert COST.startup("reduce_scatter", 4, 3, 100.0) == pytest.approx(53 * US)
    assert COST.startup("reduce_scatter", 1, 0, 100.0) == 0.0


def test_a_start_up_adds_messages_of_other_nodes_and_crossings() -> None:
    """By hand: 10 us, 7 messages of 1 us, 14 in other nodes of 1 us, 3 crossings of 5 us."""
    cost = CommunicationCost(10e-6, per_message=1e-6, per_crossing=5e-6)
    assert cost.startup("all_gather", 8, 7, 1.0) == pytest.approx(17e-6)
    assert cost.startup("all_gather", 8, 7, 1.0, further=14, crossings=3) == pytest.approx((17 + 14 + 15) * 1e-6)
    assert cost.startup("all_gather", 1, 0, 1.0, crossings=3) == pytest.approx((10 + 15) * 1e-6)
    assert cost.startup("all_gather", 1, 0, 1.0) == 0.0
    tabled = CommunicationCost(10e-6, per_message=1e-6, per_crossing=5e-6, steps=TABLES)
    assert tabled.startup("all_gather", 4, 3, 100.0, further=2, crossings=1) == pytest.approx((4 + 2 + 5) * US)
