"""Advice is what a rerun says."""

from __future__ import annotations

from moesim.studies import load, run
from moesim.studies.advice import advise, changes

TINY = ["batch.tokens_per_gpu=16"]


def test_a_change_is_played_as_if_a_user_had_made_it() -> None:
    loaded = load("demo-tiny", TINY)
    tried = {one.change: one for one in advise(loaded, seed=3)}
    wider = tried["comm.dispatch_dtype=fp8"]
    assert wider.step_s == run("demo-tiny", overrides=[*TINY, wider.change], seed=3).metrics["step_time_s"].value
    assert loaded.scenario == load("demo-tiny", TINY).scenario  # nothing was written into what was asked


def test_what_cannot_be_done_is_said_and_nothing_useless_is_tried() -> None:
    one = load("demo-tiny", ["batch.tokens_per_gpu=1"])
    refused = [tried for tried in advise(one, seed=0) if tried.refused]
    parts = {"five_stage": 2, "three_batch": 3, "tutel": 2, "two_batch": 2}
    assert {tried.change for tried in refused} == {f"overlap.schedule={name}" for name in parts}
    assert all(f"into {parts[one.change.partition('=')[2]]} parts" in one.refused for one in refused)
    alone = load("demo-tiny", ["parallel={data_parallel_size: 1}"]).scenario
    assert [change.overrides for change in changes(alone)] == [("batch.tokens_per_gpu=256",)]


def test_slower_links_are_tried_where_there_are_several_nodes() -> None:
    risks = [change.overrides[0] for change in changes(load("dsv3-prefill-ep32").scenario) if change.kind == "risk"]
    assert risks == ["cluster.oversubscription=2", "network.efficiency=0.5"]
