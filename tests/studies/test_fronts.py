"""Fronts against hand counts, chance and each other."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.studies.fronts import Goal, hypervolume, quality, r2, read_goals, undominated


def test_a_hypervolume_by_hand() -> None:
    assert hypervolume(np.array([[0.5, 1.0], [1.0, 0.5]])) == pytest.approx(0.75)
    assert hypervolume(np.array([[1.0, 1.0, 1.0]])) == 1
    assert hypervolume(np.array([[0.5, 0.5, 0.5], [1.0, 0.1, 0.1]])) == pytest.approx(0.125 + 0.5 * 0.01)
    assert hypervolume(np.zeros((0, 2))) == 0


def test_a_hypervolume_is_the_share_of_darts_that_hit_it() -> None:
    random = np.random.default_rng(0)
    points, darts = random.random((6, 3)), random.random((200_000, 3))
    under = np.zeros(len(darts), dtype=np.bool_)
    for point in points:
        under |= np.all(darts <= point, axis=1)
    hit = float(under.mean())
    assert hypervolume(points) == pytest.approx(hit, abs=4e-3)


def test_a_front_is_what_nobody_beats_and_of_equals_the_first() -> None:
    values = np.array([[1.0, 5.0], [2.0, 4.0], [2.0, 3.0], [2.0, 4.0], [3.0, 1.0]])
    assert undominated(values).tolist() == [True, True, False, False, True]
    found = quality(values)
    assert found.front == (4, 1, 0)  # by the first goal
    assert found.hypervolume == pytest.approx(0.5 * 0.75)  # (0, 1), (1/2, 3/4), (1, 0) in the box
    better = quality(np.vstack([values, [[3.0, 5.0]]]))
    assert (better.front, better.hypervolume, better.r2) == ((5,), 1.0, 0.0)


def test_r2_falls_with_every_better_answer() -> None:
    one = np.array([[0.5, 0.5]])
    assert r2(one) == pytest.approx(np.mean([max(w, 1 - w) * 0.5 for w in np.linspace(0, 1, 101)]))
    assert r2(np.vstack([one, [[0.9, 0.1]]])) < r2(one)


def test_goals_are_read_or_refused() -> None:
    assert read_goals("a:max, b:min,c") == (Goal("a", 1), Goal("b", -1), Goal("c", 1))
    for wrong in ("a:most", "", "a,a"):
        with pytest.raises(BadInput):
            read_goals(wrong)
