"""The Python interface: what names a scenario, what changes it, and what comes back as tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import moesim as ms
from moesim import shipped
from moesim.errors import BadInput
from moesim.studies.load import load

DEMO = shipped.shipped("workloads", "scenarios", "demo-tiny.yaml")
FEWER = {"batch.tokens_per_gpu": 64}


def test_dir_lists_what_there_is() -> None:
    assert {"compare", "load", "place", "run", "serve", "train", "Result", "Scenario"} <= set(dir(ms))
    assert all(getattr(ms, name) is not None for name in dir(ms))


def test_a_sweep_is_a_table_of_runs(tmp_path: Path) -> None:
    found = ms.sweep("demo-tiny", {"batch.tokens_per_gpu": [32, 64]}, folder=tmp_path / "s")
    rows = found.to_arrow().to_pylist()
    assert [row["batch.tokens_per_gpu"] for row in rows] == [32, 64]
    assert rows[1]["step_time_s"] == ms.run("demo-tiny", overrides=FEWER).metrics["step_time_s"].value
    assert "demo-tiny: 2 points, 2 ok" in found._repr_html_()


def test_a_scenario_is_a_name_a_path_a_dict_or_itself() -> None:
    loaded = load("demo-tiny")
    ways = ("demo-tiny", DEMO, str(DEMO), loaded.document.data, loaded.scenario, loaded)
    assert {load(way).scenario for way in ways} == {loaded.scenario}
    changes = (["batch.tokens_per_gpu=64"], FEWER, {"batch": {"tokens_per_gpu": 64}})
    changed = {load(way, change).scenario for way in ways for change in changes}
    assert len(changed) == 1 and changed.pop().batch.tokens_per_gpu == 64
    assert loaded.scenario.batch.tokens_per_gpu == 128 == loaded.document.data["batch"]["tokens_per_gpu"]


def test_run_plays_whatever_mode_a_scenario_has(tmp_path: Path) -> None:
    few = {"requests.number": 6, "routing.renew": "never"}
    served = ms.run("qwen3-serve", overrides=few, seed=3)
    assert isinstance(served, ms.ServeResult)
    assert served.to_json() == ms.serve("qwen3-serve", overrides=few, seed=3).to_json()
    other = {"pipeline": {"schedule": "zb-h1"}}
    trained = ms.run(ms.load("mixtral-train-pp4", other))
    assert isinstance(trained, ms.TrainResult)
    assert trained.to_json() == ms.train("mixtral-train-pp4", overrides=other).to_json()
    assert trained.metrics != ms.train("mixtral-train-pp4").metrics
    base, wide = ms.load("qwen3-serve", few), ms.load("qwen3-serve", few | {"replicas": 2})
    again = ms.compare(base, seeds=2, overrides={"replicas": 2})
    assert again.to_json() == ms.compare(base, wide, 2).to_json()


def test_prices_are_drawn_of_steps_alone() -> None:
    with pytest.raises(BadInput, match="mode: step"):
        ms.run("mixtral-train-pp4", draw_errors=True)


def test_a_dict_replaces_what_is_no_mapping() -> None:
    router = {"routing": {"router": {"name": "topk_softmax", "k": 2}, "trace": "tiny-moe-logits"}}
    assert load("demo-tiny", router).scenario.routing.router == router["routing"]["router"]  # type: ignore[union-attr]
    fewer = load("demo-tiny", {"routing.router": "topk_softmax", "routing.router.name": "switch_top1"}).scenario
    assert fewer.routing is not None and fewer.routing.router == {"name": "switch_top1"}


@pytest.mark.parametrize("overrides", [{"batch.tokens": 1}, {"": 1}, {3: 1}, "batch.tokens_per_gpu=64", {"batch": 3}])
def test_wrong_overrides_are_refused(overrides: object) -> None:
    with pytest.raises(BadInput):
        load("demo-tiny", overrides)  # type: ignore[arg-type]


def test_results_are_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ms.run("demo-tiny", overrides=FEWER)
    assert isinstance(result, ms.Result)
    table = result.to_arrow().to_pylist()
    step = next(row for row in table if row["name"] == "step_time_s")
    assert step["value"] == result.metrics["step_time_s"].value and step["unit"] == "s"
    parts = sum(row["value"] or 0 for row in table if row["name"].startswith("breakdown."))
    assert parts == pytest.approx(step["value"], rel=1e-9)
    shown = result._repr_html_()
    assert "step_time_s" in shown and "<script" not in shown and result.warnings[0][:20] in shown
    assert sum(row["bytes"] for row in result.memory) == result.metrics["peak_memory_bytes"].value
    assert result.operators[0]["seconds"] > 0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BadInput, match="pip install pandas"):
        result.to_pandas()


def test_compare_and_place_take_the_same(tmp_path: Path) -> None:
    found = ms.compare("demo-tiny", seeds=2, overrides=FEWER)
    assert found.to_json()["metrics"] == ms.compare(DEMO, ms.load("demo-tiny", FEWER), 2).to_json()["metrics"]
    assert "step_time_s" in found._repr_html_() and found.to_arrow().num_rows == len(found.metrics)
    placed = ms.place(
        ["tiny-moe"], "dgx-h100", 8, redundant=8, strategies=("eplb",), changes={"batch": {"tokens_per_gpu": 4096}}
    )
    assert [row["strategy"] for row in placed.rows()][:2] == ["contiguous", "eplb"] and "eplb" in placed._repr_html_()
