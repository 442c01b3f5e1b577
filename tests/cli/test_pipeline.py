"""`moesim pipeline`: orders drawn, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_an_order_of_one_s_own_is_drawn_and_played(moesim: Moesim, tmp_path: Path) -> None:
    """1F1B as a file takes what 1F1B takes; a deadlock prints its cycle."""
    path = tmp_path / "o.csv"
    sizes = ("--set", "parallel={data_parallel_size: 8, pipeline_parallel_size: 2, expert_parallel_size: 8}")
    run = ("run", "qwen3-train-16", *sizes, "--set", "batch.micro_batches=2", "--json")
    path.write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    assert moesim("pipeline", str(path)).out == moesim("pipeline", "1f1b", "--ranks", "2", "--micro-batches", "2").out
    own, shipped = (moesim(*run, "--set", f"pipeline.schedule={name}") for name in (path, "1f1b"))
    assert json.loads(own.out)["metrics"] == json.loads(shipped.out)["metrics"]
    path.write_text("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n")
    for words in (("pipeline", str(path)), (*run, "--set", f"pipeline.schedule={path}")):
        done = moesim(*words)
        assert done.code == 5 and "rank 1 at F1@1 waits for F1@0; back at rank 0" in done.err
