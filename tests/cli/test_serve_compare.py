"""`moesim compare` of served requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from moesim.studies.serving import load_serving
from tests.cli.test_serve import FEW, SMALL

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

ALONE = FEW.replace("poisson: {rate: 200/s}", "closed_loop: {concurrency: 1}")


def base(*overrides: str) -> str:
    data = load_serving("qwen3-serve", [*SMALL[2::2], *overrides]).step.document.data
    Path("base.yaml").write_text(yaml.safe_dump(data))
    return "base.yaml"


def test_compare_pairs_seeds_and_says_what_is_certain(moesim: Moesim) -> None:
    """2 ms of the host more in each step of one request after the other: TPOT and TTFT are 2 ms longer, every seed."""
    file = base(ALONE, "scheduler.host_time=0 s", "slo={}", "seeds=7")
    done = moesim("compare", file, "--set", "scheduler.host_time=2 ms", "--seeds", "3", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    for name in ("mean_tpot_ms", "mean_ttft_ms"):
        found = document["metrics"][name]
        assert found["value"] == pytest.approx(2.0, rel=1e-6) and 0 < found["low"] <= found["value"] <= found["high"]
    told = document["provenance"]
    assert told["seeds"] == 3 and told["base"]["seeds"] == [0]
    assert "TTFT +" in told["verdict"] and "output -" in told["verdict"] and "certain at 95 %" in told["verdict"]
    assert " Most moved: decode +" in told["verdict"]  # of every request's many steps all but the first
    assert "prefill" in moesim("compare", file, "--set", "scheduler.host_time=2 ms", "--seeds", "2").out


def test_nothing_is_certain_of_the_same_system(moesim: Moesim) -> None:
    file = base(ALONE)
    done = moesim("compare", file, "--with", file, "--seeds", "2")
    assert done.code == 0 and "No difference between" in done.out


def test_a_step_and_a_served_scenario_cannot_be_compared(moesim: Moesim) -> None:
    done = moesim("compare", "qwen3-serve", "--with", "demo-tiny")
    assert done.code == 2 and "one serves requests, the other is a step" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_keys_of_both_leave_the_requests_the_same_and_keys_of_one_are_said(moesim: Moesim) -> None:
    few = ("--both", "requests.number=6", "--both", "routing.renew=never")
    found = json.loads(moesim("compare", "qwen3-serve", *few, "--set", "replicas=2", "--seeds", "2", "--json").out)
    assert found["metrics"]["total_input"]["value"] == 0
    assert not [text for text in found["warnings"] if "different requests" in text]
    alone = ("--set", "requests.number=5")
    found = json.loads(moesim("compare", "qwen3-serve", *few, *alone, "--seeds", "2", "--json").out)
    assert found["warnings"][0].startswith("the two serve different requests (requests.number)")
