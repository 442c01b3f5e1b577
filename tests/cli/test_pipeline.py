"""`moesim pipeline`: orders drawn, counted by hand."""

from __future__ import annotations

from tests.cli.conftest import Moesim


def test_one_f_one_b_is_drawn_and_its_bubble_is_the_textbooks(moesim: Moesim) -> None:
    """(ranks - 1) / (micro-batches + ranks - 1) = 1 / 4 with 2 ranks and 3 micro-batches: 3 of 12 units."""
    done = moesim("pipeline", "1f1b", "--ranks", "2", "--micro-batches", "3")
    assert done.code == 0
    assert done.out.splitlines()[:2] == ["rank   0 |01..aa2bb.cc|", "rank   1 |.0aa1bb2cc..|"]
    assert "12 units of time, 25.0 % of them waiting" in done.out and "by rank: 2, 1" in done.out


def test_numbers_that_an_order_does_not_exist_for_are_refused(moesim: Moesim) -> None:
    done = moesim("pipeline", "dualpipe", "--ranks", "3")
    assert done.code == 2 and "2 or 4" in done.err
    assert moesim("pipeline", "1f2b").code == 2
