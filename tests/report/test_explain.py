"""The words say what the breakdown says."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.report.explain import advice, rungs, words

DOCUMENT: dict[str, Any] = {
    "metrics": {"step_time_s": {"value": 0.010, "unit": "s"}},
    "breakdown": {"ideal_compute_s": 0.006, "imbalance_s": 0.001, "exposed_comm_s": 0.003, "contention_s": None},
    "provenance": {"contention": "not played: oversubscription 1:1"},
    "warnings": [],
}


def test_shares_add_up_to_the_step(document: dict[str, Any]) -> None:
    assert sum(share for _, _, _, share in rungs(document)) == pytest.approx(1)


def test_the_parts_are_told_with_their_shares() -> None:
    text = words(DOCUMENT)
    assert text[0] == "A step takes 10 ms."
    assert any("3 ms (30.0%) is exposed communication" in sentence for sentence in text)


def test_advice_is_what_was_played_whatever_part_is_largest() -> None:
    document = {
        **DOCUMENT,
        "metrics": {**DOCUMENT["metrics"], "tokens_per_s_per_gpu": {"value": 100.0, "unit": "tok/s"}},
    }
    tried: list[dict[str, Any]] = [
        {"change": "a=1", "kind": "remedy", "step_s": 0.008, "rate": 125.0, "refused": ""},
        {"change": "b=1", "kind": "remedy", "step_s": 0.01001, "rate": 99.9, "refused": ""},
        {"change": "c=1", "kind": "remedy", "step_s": None, "rate": None, "refused": "no such thing"},
        {"change": "cluster.oversubscription=2", "kind": "risk", "step_s": 0.0111, "rate": 90.09, "refused": ""},
    ]
    assert advice(document, tried) == [
        "Played with a=1: the step is 20.0% shorter (8 ms).",
        "Tried, within 1%: b=1.",
        "Played with cluster.oversubscription=2: the step is 11.0% longer (11.1 ms).",
        "Not possible: c=1 (no such thing).",
    ]
    assert "None of the 1 changes" in advice(document, tried[1:2])[0]


def test_a_rung_that_was_not_played_says_why() -> None:
    assert "Contention has no figure: not played: oversubscription 1:1." in words(DOCUMENT)


def test_the_band_is_told_with_the_family_that_decides_it() -> None:
    factors = {"gemm": [0.99, 1.01], "attention": [0.9, 1.2]}
    document = {
        **DOCUMENT,
        "metrics": {"step_time_s": {"value": 0.010, "unit": "s", "low": 0.009, "high": 0.012}},
        "provenance": {**DOCUMENT["provenance"], "band": {"coverage": 0.8, "step_time_factors": factors}},
    }
    assert "between 9 ms and 12 ms (80% band); attention decides" in words(document)[1]


def test_the_one_part_with_a_sign_is_told_as_a_gain() -> None:
    document = {**DOCUMENT, "breakdown": {**DOCUMENT["breakdown"], "schedule_effect_s": -0.001}}
    assert any("-1 ms (-10.0%) is schedule effect: gained where" in sentence for sentence in words(document))
