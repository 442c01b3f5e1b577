"""Laws of every step that a row plays: they hold, and each is broken by a ledger or a demand that is off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moesim.studies import Result, run
from moesim.studies.gallery.laws import unlawful
from moesim.studies.load import load_data
from tests.step.by_hand import DATA


def played(**changes: Any) -> Result:
    return run(load_data({**DATA, **changes}, "by hand"))


def off(result: Result, task: str, family: str) -> Result:
    """The same step, where some task moves a kilobyte more on each rank."""
    demand = dict(result.played.demand)
    demand[task, family] = replace(demand[task, family], bytes=demand[task, family].bytes + 1024)
    return replace(result, played=replace(result.played, demand=demand))


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize("tensor", [1, 2])
def test_steps_are_lawful(precision: str, tensor: int) -> None:
    result = played(precision={"weights": precision, "experts": precision}, parallel={"tensor_parallel_size": tensor})
    assert unlawful(result) == []


@pytest.mark.parametrize("model", [DATA["model"], "openai/gpt-oss-20b"])
def test_weights_in_fp4_are_read_with_the_scales_that_memory_holds(model: Any) -> None:
    """A byte of scale for 16 weights where nothing is said (NVFP4), for 32 of a checkpoint in MXFP4."""
    precision = {"weights": "fp4", "experts": "fp4"}
    result = played(
        model=model, precision={**precision, "kv_cache": "fp4"}, cluster={"topology": "dgx-b200", "nodes": 1}
    )
    assert unlawful(result) == []


@pytest.mark.parametrize(("task", "family"), [
    ("attention", "gemm"), ("mlp", "gemm"), ("shared", "gemm"), ("head", "gemm"), ("attention", "attention"),
    ("experts", "grouped_gemm"),
])  # fmt: skip
def test_a_reading_that_memory_does_not_hold_is_told(task: str, family: str) -> None:
    assert any(task in said for said in unlawful(off(played(), task, family)))


def test_experts_beyond_those_held_are_told() -> None:
    result = played()
    rows = tuple(replace(row, bytes=row.bytes // 2) for row in result.played.memory.rows)
    small = replace(result.played, memory=replace(result.played.memory, rows=rows))
    said = unlawful(replace(result, played=small))
    assert any("experts read" in one for one in said)
    assert any("keys and values" in one for one in said)


def test_parts_add_up_and_none_is_below_zero() -> None:
    result = played()
    wrong = {**result.breakdown, "imbalance_s": -1.0}
    assert len(unlawful(replace(result, breakdown=wrong))) == 2
