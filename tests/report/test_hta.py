"""Meta's Holistic Trace Analysis reads the trace of a run, and its overlap is ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.report import perfetto
from moesim.studies import Result, run
from moesim.studies.hidden import hidden_shares

SLOWER = 1000  # HTA rounds to whole microseconds


@pytest.mark.parametrize("schedule", ["sequential", "two_batch"])
def test_hta_finds_the_overlap_that_we_print(schedule: str, tmp_path: Path) -> None:
    analysis = pytest.importorskip("hta.trace_analysis", reason="pip install HolisticTraceAnalysis")
    result = run("demo-tiny", overrides={"overlap.schedule": schedule})
    line = result.played.timeline
    slow = replace(line, start=line.start * SLOWER, end=line.end * SLOWER)
    for name, text in perfetto.rank_traces(result.name, replace(result.played, timeline=slow)).items():
        (tmp_path / name).write_text(text)
    found = analysis.TraceAnalysis(trace_dir=str(tmp_path)).get_comm_comp_overlap(visualize=False)
    assert found["comp_comm_overlap_pctg"].to_list() == pytest.approx(100 * ours(result), abs=0.02)
    assert result.metrics["comm_overlap_fraction"].value == pytest.approx(ours(result).mean())


def test_a_gpu_s_overlap_is_counted_interval_by_interval(result: Result) -> None:
    """Brute force: between two neighbouring ends of lanes nothing begins or ends."""
    line, moves = result.played.timeline, result.played.graph.coflow[result.played.timeline.task] >= 0
    for rank, share in enumerate(ours(result)[:2]):
        here = line.rank == rank
        edges = np.unique(np.concatenate([line.start[here], line.end[here]]))
        inside, both = 0, 0
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            on = here & (line.start <= low) & (line.end >= high) & (line.end > line.start)
            inside += (high - low) * bool((on & moves).any())
            both += (high - low) * bool((on & moves).any() and (on & ~moves).any())
        assert share == pytest.approx(both / inside)


def ours(result: Result) -> Any:
    return hidden_shares(result.played.graph, result.played.timeline)


def test_one_gpu_alone_has_no_transfers_to_hide() -> None:
    alone: Sequence[float] = hidden_shares(*_alone()).tolist()
    assert alone == []


def _alone() -> tuple[Any, Any]:
    keys = {"cluster.nodes": 1, "parallel": {"data_parallel_size": 1, "expert_parallel_size": 1}}
    played = run("demo-tiny", overrides=keys).played
    return played.graph, played.timeline
