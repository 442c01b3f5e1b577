"""Orders of users' own: every shipped one comes back from a file as it was written; what no runtime would read."""

from __future__ import annotations

from pathlib import Path

import pytest

from moesim.errors import BadInput, Deadlock
from moesim.schedules.pipelines import Act, Orders, OrdersFile, Pass, Slot, find_pipeline, play

LETTERS = {Pass.F: "F", Pass.B: "B", Pass.D: "I", Pass.W: "W"}


def cell(slot: Slot) -> str:
    """As PyTorch prints actions."""
    each = [f"{act.stage}{LETTERS[act.what]}{act.micro_batch}" for act in slot]
    return each[0] if len(each) == 1 else f"({';'.join(each)})OVERLAP_F_B"


def written(orders: Orders, path: Path) -> Path:
    """An idle cell behind every action, spaces and an empty line: all are read over."""
    path.write_text("\n\n".join(", ,".join(map(cell, slots)) for slots in orders))
    return path


@pytest.mark.parametrize(("name", "chunks"), [
    ("gpipe", None), ("1f1b", None), ("interleaved", 2), ("zb-h1", None), ("zb-h2", None), ("dualpipev", None),
])  # fmt: skip
def test_shipped_orders_come_back(name: str, chunks: int | None, tmp_path: Path) -> None:
    shipped = find_pipeline(name)(4, 8, chunks)
    found = find_pipeline(str(written(shipped.orders, tmp_path / "o.csv")))(4, 8, chunks)
    assert found.orders == shipped.orders and found.stages == shipped.stages
    assert [found.alive(rank) for rank in range(4)] == [shipped.alive(rank) for rank in range(4)]
    assert all(found.rank_of(0, stage) == shipped.rank_of(0, stage) for stage in range(found.stages))


def test_two_passes_at_once_are_one_slot(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text("0F0,(0F1;0I0)OVERLAP_F_B,0W0,0B1\n")
    found = OrdersFile(path)
    assert (found.ranks, found.micro_batches) == (1, 2)
    assert list(found.rank(0))[1] == (Act(Pass.F, 1, 0), Act(Pass.D, 0, 0))


def test_a_deadlock_names_its_cycle(tmp_path: Path) -> None:
    """Rank 1 wants micro-batch 1 first, which rank 0 begins only behind the backward pass of the other."""
    path = tmp_path / "o.csv"
    path.write_text("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n")
    with pytest.raises(Deadlock, match="rank 0 at B0@0 waits for B0@1; rank 1 at F1@1 waits for F1@0; back at rank 0"):
        play(OrdersFile(path).orders, lambda rank, slot: 1)


@pytest.mark.parametrize(("text", "said"), [
    ("0F0,0B0\n1F0,1SEND_B0", "o.csv:2: '1SEND_B0' is no pass"), ("", "has no passes"),
    ("0F0,0B0\n0F0,1B0", "stage 0 is on ranks 0 and 1"), ("0F0\n1F0,1B0", "has 1 F, 0 B, 0 D, 0 W in stage 0"),
    ("0F0,0B0\n1F0,1B0\n2F0,2B0", "an order of 3 ranks, not of 2"),
    ("0F0,0F2,0B0\n1F0,1B0", "3 micro-batches, not of 1"),
])  # fmt: skip
def test_what_is_no_order_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        OrdersFile(path, 2, 1)
    with pytest.raises(BadInput, match="cannot be read"):
        OrdersFile(tmp_path / "none.csv")
