"""Pipelines: closed forms in their domain, everything once, activations, deadlocks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from moesim.errors import BadInput, Deadlock
from moesim.schedules.pipelines import Act, Orders, Pass, Pipeline, Slot, check_orders, find_pipeline, play

BUBBLES = Path(__file__).parents[1] / "data" / "pipeline_bubbles.csv"
NAMES = {"1F1B": "1f1b", "interleaved 1F1B": "interleaved", "ZB-H1": "zb-h1", "DualPipe": "dualpipe"}
ROWS = list(csv.DictReader(BUBBLES.read_text().splitlines()))


def makespan(pipeline: Pipeline, f: int, b: int, w: int, fb: int) -> int:
    """b: the whole backward."""
    seconds = {Pass.F: f, Pass.B: b, Pass.D: b - w, Pass.W: w}

    def price(_rank: int, slot: Slot) -> int:
        return fb if len(slot) > 1 else seconds[slot[0].what]

    return play(pipeline.orders, price).makespan


def of_row(row: dict[str, str]) -> tuple[Pipeline, int]:
    """(pipeline, makespan in tenths); ZB rows give the input gradient alone as B."""
    name = NAMES.get(row["schedule"], "interleaved")
    chunks = int(row["chunks"]) if name == "interleaved" else None
    pipeline = find_pipeline(name)(int(row["stages"]), int(row["microbatches"]), chunks)
    f, b, w, fb = (round(10 * float(row[key] or 0)) for key in ("F", "B", "W", "FB"))
    return pipeline, makespan(pipeline, f, b + (w if name == "zb-h1" else 0), w, fb)


@pytest.mark.parametrize("schedule", sorted({row["schedule"] for row in ROWS}))
def test_executed_makespans(schedule: str) -> None:
    """Against the executed makespan, in its domain against the closed form too; one chunk is no interleaving."""
    wrong: dict[tuple[str, ...], float] = {}
    for row in ROWS:
        if row["schedule"] != schedule or (schedule.startswith("inter") and row["chunks"] == "1"):
            continue
        found = of_row(row)[1] / 10
        published = {float(row["executed_makespan"])}
        published |= {float(row["formula_makespan"])} if row["in_domain"] == "True" else set()
        if published != {found}:
            wrong[row["stages"], row["microbatches"], row["chunks"]] = found
    assert not wrong


FREE = [("gpipe", 4, 6, None), ("1f1b", 4, 6, None), ("interleaved", 4, 8, 3), ("zb-h1", 4, 8, None),
        ("zb-h2", 4, 8, None), ("dualpipe", 4, 12, None), ("dualpipev", 4, 12, None)]  # fmt: skip


@pytest.mark.parametrize(("name", "ranks", "micro_batches", "chunks"), FREE)
def test_everything_is_done_once_and_ends(name: str, ranks: int, micro_batches: int, chunks: int | None) -> None:
    pipeline = find_pipeline(name)(ranks, micro_batches, chunks)
    check_orders(pipeline.orders, micro_batches, pipeline.stages)
    assert play(pipeline.orders, lambda rank, slot: len(slot)).makespan > 0


def test_activations_alive_by_hand() -> None:
    assert [find_pipeline("1f1b")(4, 8).alive(rank) for rank in range(4)] == [4, 3, 2, 1]
    assert [find_pipeline("gpipe")(4, 8).alive(rank) for rank in range(4)] == [8] * 4


def test_zb_h2_has_no_bubble() -> None:
    ranks, micro_batches = 4, 9
    played = play(find_pipeline("zb-h2")(ranks, micro_batches).orders, lambda rank, slot: 1)
    spans = [ends[-1] - starts[0] for starts, ends in zip(played.start, played.end, strict=True)]
    assert spans == [3 * micro_batches] * ranks


def test_a_deadlock_names_its_cycle() -> None:
    f0, b0 = (Act(Pass.F, 0, 0), Act(Pass.B, 0, 0))
    f1, b1 = (Act(Pass.F, 0, 1), Act(Pass.B, 0, 1))
    orders: Orders = (((b0,), (f0,)), ((f1,), (b1,)))
    with pytest.raises(Deadlock, match="rank 0 at B0@0 waits for F0@0; back at rank 0"):
        play(orders, lambda rank, slot: 1)


@pytest.mark.parametrize(
    ("name", "ranks", "micro_batches", "way_out"),
    [("dualpipe", 3, 12, "2 or 4"), ("interleaved", 4, 6, "2 chunks"), ("zb-h2", 4, 6, "7 micro-batches")],
)
def test_refusals_name_the_way_out(name: str, ranks: int, micro_batches: int, way_out: str) -> None:
    with pytest.raises(BadInput, match=way_out):
        find_pipeline(name)(ranks, micro_batches)
