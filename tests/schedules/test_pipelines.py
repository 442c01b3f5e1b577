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
    rows = [row for row in ROWS if row["schedule"] == schedule]
    wrong = []
    for row in rows:
        if schedule.startswith("inter") and int(row["chunks"]) < 2:
            continue
        try:
            found = of_row(row)[1] / 10
        except BadInput as error:
            wrong.append((row["stages"], row["microbatches"], row["chunks"], str(error), row["in_domain"]))
            continue
        if row["in_domain"] == "True" and found != float(row["formula_makespan"]) or found != float(row["executed_makespan"]):
            wrong.append((row["stages"], row["microbatches"], row["chunks"], found, row["executed_makespan"], row["in_domain"]))
    assert not wrong
