"""Computing that is slower beside transfers, from the command line, against hand arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from moesim.engine import TaskGraph, Timeline
from moesim.studies import load, run

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

Floats = npt.NDArray[np.float64]
HALVES = ("comm.dispatch=deepep_low_latency", "batch.tokens_per_gpu=512", "overlap.schedule=two_batch")
EVEN = (*HALVES, "routing={balanced: true}", "network.level=port_load")
TRAIN = ("batch={phase: train, tokens_per_gpu: 128, context: 64}", "comm.dispatch=nccl", "overlap.schedule=two_batch")
PREFILL = ("batch={phase: prefill, tokens_per_gpu: 512, context: 128}", "overlap.schedule=two_batch")

SERVED = (
    "model=tiny-moe", "routing={trace: tiny-moe}", "precision={}", "seeds=1", "overlap.schedule=two_batch",
    "requests={number: 24, arrivals: {poisson: {rate: 300/s}}, input_length: {fixed: 200}, output_length: {fixed: 20}}",
)  # fmt: skip


def told(moesim: Moesim, *overrides: str) -> dict[str, Any]:
    given = [part for one in overrides for part in ("--set", one)]
    found = moesim("run", "demo-tiny", "--json", *given)
    assert found.code == 0, found.err
    document: dict[str, Any] = json.loads(found.out)
    return document


def seconds(moesim: Moesim, *overrides: str) -> float:
    return float(told(moesim, *overrides)["metrics"]["step_time_s"]["value"])


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_a_hidden_transfer_costs_what_computing_falls_behind_in_it(moesim: Moesim, factor: float) -> None:
    """Even rows in two halves: every transfer but the last, behind which only the head is left, is shorter than what is
    computed beside it. In t seconds of one, t / factor are computed: the step is longer by (1 - 1 / factor) of them.
    """
    played = run(load("demo-tiny", EVEN)).played
    first = (played.timeline.rank == 0) & (played.graph.coflow >= 0)[played.timeline.task]
    hidden = (played.timeline.end - played.timeline.start)[first][:-1].sum() * 1e-12
    slowed = told(moesim, *EVEN, f"overlap.interference={factor}")
    added = slowed["metrics"]["step_time_s"]["value"] - seconds(moesim, *EVEN)
    assert added == pytest.approx((1 - 1 / factor) * hidden, abs=len(played.timeline.start) * 1e-12)  # a tick a task
    assert slowed["breakdown"]["interference_s"] == pytest.approx(added, rel=1e-9)


@pytest.mark.parametrize("of", [HALVES, EVEN, TRAIN, PREFILL])
def test_every_task_does_its_work_at_the_rate_of_each_moment(of: tuple[str, ...]) -> None:
    """Of any lane that computes: seconds alone = seconds it took - (1 - 1 / factor) of those beside transfers."""
    found = run(load("demo-tiny", (*of, "overlap.interference=1.25"))).played
    beside = beside_transfers(found.graph, found.timeline)
    computes = (found.graph.coflow < 0)[found.timeline.task]
    taken = (found.timeline.end - found.timeline.start)[computes]
    alone = taken - (1 - 1 / 1.25) * beside[computes]
    assert beside[computes].sum() > 0
    assert np.abs(alone - found.graph.lane_ps[computes]).max() <= 4  # rates change a few times in a lane's life


def beside_transfers(graph: TaskGraph, line: Timeline) -> Floats:
    """float64[lanes] ps of each lane during which a transfer of its rank holds the other stream."""
    found, moves = np.zeros(len(line.start)), (graph.coflow >= 0)[line.task]
    for rank in range(graph.num_ranks):
        here, sends = np.flatnonzero(line.rank == rank), np.flatnonzero((line.rank == rank) & moves)
        ends = np.minimum.outer(line.end[here], line.end[sends])
        begins = np.maximum.outer(line.start[here], line.start[sends])
        found[here] = np.maximum(ends - begins, 0).sum(axis=1)
    return found


@pytest.mark.parametrize("of", [HALVES, TRAIN, PREFILL])
def test_a_larger_factor_is_never_faster_and_one_is_none(moesim: Moesim, of: tuple[str, ...]) -> None:
    plain = told(moesim, *of)
    one = told(moesim, *of, "overlap.interference=1.0")
    assert (one["metrics"], one["breakdown"], one["warnings"]) == tuple(
        plain[key] for key in ("metrics", "breakdown", "warnings")
    )
    assert one["provenance"]["scenario_hash"] == plain["provenance"]["scenario_hash"]
    found = [seconds(moesim, *of, f"overlap.interference={factor}") for factor in (1.05, 1.5, 4)]
    assert plain["metrics"]["step_time_s"]["value"] < found[0] < found[1] < found[2]


def test_where_nothing_computes_beside_a_transfer_nothing_changes_and_the_result_says_so(moesim: Moesim) -> None:
    """With even rows: where they are uneven, a GPU that has its own may compute while it still sends others theirs."""
    alone = (*EVEN, "overlap={schedule: sequential, shared_expert: false}")
    plain, slowed = told(moesim, *alone), told(moesim, *alone, "overlap.interference=3")
    assert slowed["metrics"] == plain["metrics"] and slowed["breakdown"]["interference_s"] == 0
    assert any("overlap.interference changes nothing here" in text for text in slowed["warnings"])


def test_a_factor_is_said_to_be_assumed(moesim: Moesim) -> None:
    found = told(moesim, *EVEN, "overlap.interference=1.2")
    assert found["provenance"]["compute_slowdown_beside_transfers"] == 1.2
    words = "computing takes 1.2 times as long while a transfer of its GPU is under way"
    assert any(words in text and "assumed" in text for text in found["warnings"])


@pytest.mark.parametrize("value", ["0.9", "-1", ".nan", "nan", ".inf", "1e9", "much"])
def test_no_factor_is_refused_in_one_line(moesim: Moesim, tmp_path: Path, value: str) -> None:
    given = moesim("run", "demo-tiny", "--set", f"overlap.interference={value}")
    assert given.code == 2 and given.err.count("\n") == 1 and "overlap.interference" in given.err
    scenario = tmp_path / "own.yaml"
    scenario.write_text(f"extends: demo-tiny\noverlap:\n  interference: {value}\n")
    found = moesim("run", str(scenario))
    assert found.code == 2 and found.err.count("\n") == 1


def test_where_a_factor_acts_on_nothing_it_is_said_or_refused(moesim: Moesim) -> None:
    alone = moesim("run", "demo-serve", "--set", "overlap.interference=1.2")
    assert "changes nothing: one GPU has no transfers" in alone.out
    train = moesim("run", "mixtral-train-pp4", "--set", "overlap.interference=1.2")
    assert train.code == 2 and "nothing to act on in mode: train" in train.err
    unknown = moesim("run", "demo-tiny", "--set", "overlap.interfere=1.2")
    assert unknown.code == 2 and "did you mean 'interference'" in unknown.err


def test_steps_of_served_requests_are_slowed_too(moesim: Moesim) -> None:
    found = []
    for factor in (1, 1.5, 3):
        given = [part for one in (*SERVED, f"overlap.interference={factor}") for part in ("--set", one)]
        played = moesim("run", "qwen3-serve", "--json", *given)
        assert played.code == 0, played.err
        found.append(json.loads(played.out))
    spent = [one["metrics"]["mean_tpot_ms"]["value"] for one in found]
    assert spent[0] < spent[1] < spent[2]
    assert "compute_slowdown_beside_transfers" not in found[0]["provenance"]
    assert found[2]["provenance"]["compute_slowdown_beside_transfers"] == 3
    assert any("overlap.interference" in text and "assumed" in text for text in found[2]["warnings"])
