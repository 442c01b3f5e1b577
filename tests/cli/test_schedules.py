"""Schedules from the command line: they end in the order that they should, and say what they assume."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

TRANSFERS = ("--set", "comm.dispatch=deepep_low_latency", "--set", "batch.tokens_per_gpu=512")  # holds no SMs


def seconds(moesim: Moesim, *overrides: str) -> float:
    given = [part for one in overrides for part in ("--set", one)]
    found = moesim("run", "demo-tiny", "--json", *TRANSFERS, *given)
    assert found.code == 0, found.err
    return float(json.loads(found.out)["metrics"]["step_time_s"]["value"])


def test_every_schedule_is_listed_and_runs(moesim: Moesim) -> None:
    listed = moesim("list").out
    names = ("sequential", "two_batch", "three_batch", "five_stage", "tutel", "scmoe")
    assert all(name in listed for name in names)
    found = {name: seconds(moesim, f"overlap.schedule={name}") for name in names}
    assert found["scmoe"] < found["sequential"]  # the same kernels, some of them beside transfers
    assert len(set(found.values())) == len(names)  # small parts pay a start-up each


def test_tutel_of_degree_one_is_sequential_and_a_degree_is_refused_elsewhere(moesim: Moesim) -> None:
    one = seconds(moesim, "overlap={schedule: tutel, degree: 1}")
    assert one == pytest.approx(seconds(moesim, "overlap.schedule=sequential"), rel=1e-12)
    refused = moesim("run", "demo-tiny", "--set", "overlap={schedule: two_batch, degree: 2}")
    assert refused.code == 2 and "two_batch has no degree to choose" in refused.err


def test_a_model_with_shortcuts_is_another_model_and_the_result_says_so(moesim: Moesim) -> None:
    assert "trained with shortcut connections" in moesim("run", "demo-tiny", "--set", "overlap.schedule=scmoe").out


def test_tokens_that_travel_cannot_leave_before_their_experts_are_done(moesim: Moesim) -> None:
    found = moesim("run", "demo-tiny", "--set", "overlap.schedule=scmoe", "--set", "comm.dispatch=exflow")
    assert found.code == 2 and "scmoe begins the next layer before" in found.err and "sequential" in found.err


def test_what_has_no_backward_pass_is_refused_in_training(moesim: Moesim) -> None:
    found = moesim(
        "run", "demo-tiny", "--set", "batch={phase: train, tokens_per_gpu: 128, context: 64}", "--set",
        "comm.dispatch=nccl", "--set", "overlap.schedule=five_stage",
    )  # fmt: skip
    assert found.code == 2 and "attention_core has no backward node" in found.err


def test_a_router_that_looks_at_the_whole_batch_is_not_asked_part_by_part(moesim: Moesim) -> None:
    routing = "routing={router: expert_choice, generator: {}}"
    found = moesim("run", "demo-tiny", "--set", routing, "--set", "overlap.schedule=tutel")
    assert found.code == 2 and "expert_choice would decide part by part" in found.err
