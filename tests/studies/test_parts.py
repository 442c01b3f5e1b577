"""Parts of a step: never negative, together the step; and a sample of the trial that tries it on random scenarios."""

from __future__ import annotations

from moesim.studies.parts import EFFECT, breakdown
from trials.ladder import Tally, try_random


def test_a_part_is_what_its_rung_adds() -> None:
    found = breakdown([("ideal_compute_s", 5_000), ("other_s", 5_000), ("imbalance_s", 8_000), ("contention_s", None)])
    assert found == {
        "ideal_compute_s": 5e-9, "imbalance_s": 3e-9, "contention_s": None, "bubble_s": 0.0, "other_s": 0.0, EFFECT: 0.0
    }  # fmt: skip


def test_a_rung_below_the_one_before_is_an_effect_of_the_schedule() -> None:
    found = breakdown([("ideal_compute_s", 9_000), ("fault_s", 7_000)])
    assert found["fault_s"] == 0.0 and found[EFFECT] == -2e-9
    assert list(found)[-1] == EFFECT


def test_no_part_of_random_scenarios_is_negative() -> None:
    tally = Tally()
    try_random(tally, number=24, seed=7)
    assert not tally.broken and tally.count["negative part"] == 0
    assert tally.count["imbalance_s"] > 12 and tally.count["player simulate"] > 4  # the sample tries what it should
    assert tally.largest_effect == 0.0
