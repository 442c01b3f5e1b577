"""A step without one of its causes is that step played, and parts keep the order that they must have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from moesim.report.explain import advice
from moesim.studies import load, run
from moesim.studies.changes import headline, serving_changes, training_changes
from moesim.studies.counterfactual import ALONE, BESIDE, BOTH, EVEN, INFINITE, ideals, levels
from moesim.studies.serving import load_serving, run_serving
from moesim.studies.training import load_training, run_training

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

FEW = ["batch.tokens_per_gpu=16", "batch.context=64"]


@pytest.mark.parametrize("schedule", ["sequential", "two_batch"])
def test_levels_are_the_ladders_and_no_order_beats_perfect_overlap(schedule: str) -> None:
    asked = [*FEW, f"overlap.schedule={schedule}"]
    found, ladder = levels(load("demo-tiny", asked), 2), run("demo-tiny", overrides=asked, seed=2)
    parts = {name: seconds or 0.0 for name, seconds in ladder.breakdown.items()}
    none = parts["ideal_compute_s"] + parts["other_s"] + parts["imbalance_s"]
    assert found.whole == pytest.approx(ladder.metrics["step_time_s"].value, abs=2e-12)
    assert found.none == pytest.approx(none + parts.get("schedule_effect_s", 0.0), rel=1e-3)
    assert found.none <= found.ports <= found.whole
    assert max(found.none, found.transfers) <= found.ports <= found.none + found.transfers


def test_causes_are_taken_away_one_by_one_and_together() -> None:
    found = {one.name: one.seconds for one in ideals(load("demo-tiny", FEW), 2)}
    assert set(found) >= {INFINITE, BESIDE, EVEN, BOTH}
    even = run("demo-tiny", overrides=[*FEW, "routing={balanced: true}"], seed=2)
    assert found[EVEN] == pytest.approx(even.metrics["step_time_s"].value, abs=2e-12)
    assert (found[BOTH] or 0) <= min(found[EVEN] or 0, found[INFINITE] or 0)
    balanced = [one.name for one in ideals(load("demo-tiny", [*FEW, "routing={balanced: true}"]), 2)]
    assert EVEN not in balanced and set(balanced) <= {INFINITE, BESIDE, ALONE}


def row(change: str, kind: str, seconds: float) -> dict[str, Any]:
    return {"change": change, "kind": kind, "step_s": seconds, "rate": None, "refused": ""}


@pytest.mark.parametrize(
    ("both", "said"),
    [(5.0, "saves 5 s, what they save alone: they do not interact"),
     (6.0, "saves 4 s, 1 s less than alone: one hides behind another"),
     (3.0, "saves 7 s, 2 s that none of them saves alone"),
     (11.0, "With even routing and an infinite network at once it takes 1 s longer, ")],
)  # fmt: skip
def test_interactions_are_told_as_by_hand(both: float, said: str) -> None:
    """Of 10 s: 2 s alone by even routing, 3 s alone by the network."""
    metrics = {"step_time_s": {"value": 10.0}, "tokens_per_s_per_gpu": {"value": 1.0}}
    document = {"metrics": metrics, "breakdown": {}, "provenance": {}}
    told = advice(document, [row(EVEN, "ideal", 8.0), row(INFINITE, "ideal", 7.0), row(BOTH, "together", both)])
    assert told[0] == f"With {INFINITE}, the step would be 30.0% shorter (7 s)."
    assert said in told[2]


def test_served_requests_are_explained_by_runs(moesim: Moesim) -> None:
    Path("tiny.yaml").write_text(json.dumps({
        "moesim": 1, "name": "tiny", "mode": "serve", "model": "tiny-moe",
        "cluster": {"topology": "dgx-h100", "nodes": 1},
        "routing": {"trace": "tiny-moe", "renew": "never"},
        "requests": {"number": 8, "arrivals": {"closed_loop": {"concurrency": 4}}, "input_length": 50,
                     "output_length": 5},
    }))  # fmt: skip
    assert moesim("run", "tiny.yaml", "--out", "r").code == 0
    done = moesim("explain", "r", "--json")
    assert done.code == 0, done.err
    tried = {one["change"]: one for one in json.loads(done.out)["tried"]}
    twice = run_serving("tiny.yaml", overrides=["replicas=2"]).to_json()
    assert (tried["replicas=2"]["step_s"], tried["replicas=2"]["rate"]) == headline(twice)
    assert [one["kind"] for one in tried.values()].count("together") == 1
    assert "the mean request would be" in done.err and "at once it saves" in done.err
    assert moesim("explain", "r", "--json").out == done.out  # kept beside the run


def test_a_training_run_is_explained_by_runs(moesim: Moesim) -> None:
    words = ("mixtral-train-pp4", "--set", "batch.micro_batches=8")
    assert moesim("run", *words, "--out", "r").code == 0
    done = moesim("explain", "r", "--json")
    assert done.code == 0, done.err
    tried = {one["change"]: one for one in json.loads(done.out)["tried"]}
    more = run_training("mixtral-train-pp4", overrides=["batch.micro_batches=16"])
    assert tried["batch.micro_batches=16"]["rate"] == more.metrics["tokens_per_s_per_gpu"].value


def test_only_what_can_act_is_tried() -> None:
    pools = [change.overrides[0] for change in serving_changes(load_serving("dsv3-pools").scenario)]
    assert "pools.decode.replicas=2" in pools and not any(text.startswith("replicas") for text in pools)
    flat = load_training("qwen3-train-16", ["parallel={data_parallel_size: 16}", "pipeline={schedule: 1f1b}"])
    assert [change.overrides for change in training_changes(flat.scenario)] == [("batch.micro_batches=256",)]
