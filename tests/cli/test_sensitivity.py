"""`moesim sensitivity` and fronts of sweeps from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim


def test_which_error_matters_is_what_its_factor_does_to_the_step(moesim: Moesim) -> None:
    done = moesim("sensitivity", "demo-tiny", "--bands", "--points", "2", "--json", "--out", "s")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    slopes = {name: one["value"] for name, one in document["metrics"].items() if name.startswith("mu_star.")}
    assert {"mu_star.error.grouped_gemm", "mu_star.error.network"} <= slopes.keys()
    assert max(slopes, key=lambda name: slopes[name]) == "mu_star.error.grouped_gemm"
    assert {document["metrics"][name]["unit"] for name in ("high", "mu_star.error.grouped_gemm")} == {"s"}
    assert "drawn log-normal" in document["warnings"][0]
    again = moesim("sensitivity", "demo-tiny", "--bands", "--points", "2", "--json", "--out", "s")
    assert "(0 run now" in again.err and json.loads(again.out) == document


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo-tiny"], "has no input"),
        (["demo-tiny", "--set", "network.efficiency=0.5..1", "--points", "1", "--json"], "how moves vary"),
        (["demo-tiny", "--set", "network.efficiency=0.5..1", "--method", "sobol", "--points", "3"], "no power of two"),
        (["demo-tiny", "--set", "network.efficiency=0.5..1", "--metric", "step_time_s <"], "is not an expression"),
        (["qwen3-serve", "--bands"], "where one step is played"),
    ],
)
def test_what_cannot_be_asked_is_refused(moesim: Moesim, words: list[str], said: str) -> None:
    done = moesim("sensitivity", *words)
    assert done.code == 2
    assert said in done.err


def test_a_front_keeps_what_no_point_beats(moesim: Moesim) -> None:
    done = moesim(
        "sweep", "demo-tiny", "--set", "batch.tokens_per_gpu=16,64", "--set", "overlap.schedule=sequential,two_batch",
        "--front", "step_time_s:min,tokens_per_s_per_gpu:max", "--json",
    )  # fmt: skip
    document = json.loads(done.out)
    kept = [document["points"][row] for row in document["front"]]
    assert {row["overlap.schedule"] for row in kept} == {"sequential"}  # two_batch is slower in both goals here
    assert document["metrics"]["front_points"]["value"] == 2
    assert 0 < document["metrics"]["hypervolume"]["value"] < 1
