"""`moesim search`: small spaces whole, larger ones as an optimizer asks, and how far that is from all of it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

GOALS = ("--front", "tokens_per_s_per_gpu:max,step_time_s:min")
SPACE = ("--set", "batch.tokens_per_gpu=16,32,48,64", "--set", "batch.context=64,128,256,512,1024",
         "--set", "network.level=port_load")  # fmt: skip
HERE = ("--jobs", "0", "--out", "s", "--json")


def found(moesim: Moesim, *words: str) -> dict[str, Any]:
    done = moesim("search", "demo-tiny", *words, *GOALS, *HERE)
    assert done.code == 0, done.err
    document: dict[str, Any] = json.loads(done.out)
    return document | {"said": done.err}


def test_a_space_that_the_budget_covers_is_a_sweep(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # not asked
    searched = found(moesim, *SPACE, "--budget", "20")
    swept = json.loads(moesim("sweep", "demo-tiny", *SPACE, *GOALS, *HERE).out)
    assert "all 20 points played" in searched["said"]
    assert [searched[name] for name in ("points", "front")] == [swept[name] for name in ("points", "front")]


def test_an_optimizer_asks_in_a_larger_space_and_the_same_command_runs_nothing_again(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'moesim[search]'")
    words = (*SPACE, "--budget", "13", "--exhaustive")
    first = found(moesim, *words)
    values = {name: metric["value"] for name, metric in first["metrics"].items()}
    assert (values["points_searched"], values["space_points"]) == (13, 20)
    assert 0.8 < values["hypervolume_share"] <= 1  # 65 % of the space, and each goal is monotone in each key
    monkeypatch.setattr("moesim.studies.sweeping.subject.Subject.play", None)  # nothing is played
    again = found(moesim, *words)
    assert again["metrics"] == first["metrics"]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_intervals_have_no_end_and_are_searched(moesim: Moesim, sampler: str) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'moesim[search]'")
    words = ("--set", "batch.tokens_per_gpu=log 8..64", "--budget", "4", "--sampler", sampler)
    document = found(moesim, *words)
    asked = [row["batch.tokens_per_gpu"] for row in document["points"]]
    assert len(set(asked)) == 4 and all(8 <= tokens <= 64 for tokens in asked)
    assert f"4 of endlessly many points played, as {sampler} asked" in document["said"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "search: has no axis. Try: --set key=1,2,4"),
        (("--set", "batch.context=1..9", "--exhaustive"), "--exhaustive: an interval has no end of points"),
        (("--set", "batch.contest=1,2"), "did you mean"),
    ],
)
def test_what_is_no_question(moesim: Moesim, words: tuple[str, ...], said: str) -> None:
    done = moesim("search", "demo-tiny", *words, *GOALS, *HERE)
    assert done.code == 2 and said in done.err


def test_without_optuna_the_extra_is_named(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = moesim("search", "demo-tiny", *SPACE, "--budget", "3", *GOALS, *HERE)
    assert done.code == 2 and "pip install 'moesim[search]'" in done.err
