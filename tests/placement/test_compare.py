"""Strategies side by side."""

from __future__ import annotations

import numpy as np

from moesim.hardware import load_cluster
from moesim.placement import PlacementProblem, Windows, compare

CLUSTER = load_cluster("dgx-h100", nodes=1)
WINDOWS = Windows("train", np.array([[[8, 8, 1, 1]], [[9, 9, 1, 1]], [[1, 9, 9, 1]]]))


def test_the_last_windows_are_judged_on_and_not_planned_on() -> None:
    found = compare(PlacementProblem.on(CLUSTER, WINDOWS, ranks=2), ("contiguous", "lpt"), 0.3)
    assert found.problem.train.num_windows == 2
    in_order, lpt = found.solutions
    assert lpt.objective == 1 and in_order.objective > 1.7 and list(lpt.heldout) == ["held out"]
    assert found.best is min(found.solutions, key=lambda one: one.heldout["held out"])


def test_the_table_has_a_row_a_strategy_and_a_column_for_each_set_of_windows() -> None:
    one = PlacementProblem.on(CLUSTER, WINDOWS, ranks=2)
    head, *rows = str(compare(one, ("lpt", "random"), {"decode": WINDOWS, "drift": WINDOWS})).splitlines()
    assert "decode" in head and "drift" in head and [row.split()[0] for row in rows] == ["lpt", "random"]
