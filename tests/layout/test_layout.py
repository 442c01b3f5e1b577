"""Layout: groups of the rank grid, slots and experts, and memory that does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.errors import BadInput, DoesNotFit
from moesim.layout import HBM, Layout, MemoryLedger, MemoryRow, Placement


def test_groups_of_a_grid() -> None:
    layout = Layout(world=8, tensor_parallel=2, expert_parallel=4)
    assert layout.tensor_groups().tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.data_groups().tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert layout.expert_groups().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert layout.expert_data_groups().tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_a_degree_that_does_not_divide_names_those_that_do() -> None:
    with pytest.raises(BadInput, match="expert_parallel_size 5 does not divide 8 ranks. Try: one of 1, 2, 4, 8"):
        Layout(world=8, expert_parallel=5)


def test_contiguous_placement() -> None:
    placement = Placement.contiguous(layers=1, experts=8, ranks=4)
    assert placement.slot_rank[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert placement.expert_slots[0, :, 0].tolist() == list(range(8))
    assert placement.by_rank(0, np.arange(8)).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("experts", "ranks", "message"),
    [([0, 0, 1], [0, 0, 1], "expert 2 has no slot"), ([0, 1, 3], [0, 0, 1], "expert 3 is not below 3"),
     ([0, 1, 2], [1, 0, 1], "not sorted by rank")],
)  # fmt: skip
def test_a_placement_that_cannot_be(experts: list[int], ranks: list[int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Placement(np.array([experts], np.int32), np.array([ranks], np.int32), num_experts=3, num_ranks=2)


def test_memory_that_does_not_fit_shows_the_table_and_the_smallest_change() -> None:
    rows = (MemoryRow(HBM, "weights", 70, "expert_parallel_size"), MemoryRow(HBM, "KV cache", 50, "batch.context"))
    with pytest.raises(
        DoesNotFit, match=r"needs 120 B of 100 B, 20 B too much \(weights 70 B, KV cache 50 B\).*cut weights to 50 B"
    ):
        MemoryLedger(rows, {HBM: 100}).check()
