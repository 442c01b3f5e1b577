"""`validate all` names whatever a scenario can reach."""

from __future__ import annotations

import pytest

from moesim.network import all_to_all
from moesim.step import lower
from moesim.studies import load
from moesim.studies.build import build
from moesim.studies.validation.everything import COLLECTIVES, COMPUTE, everything
from moesim.studies.validation.validation import Point, Validation

FAMILY = {  # error family -> words of the row that stands for it
    "gemm": "dense GEMM", "grouped_gemm": "experts", "attention": "attention", "elementwise": "elementwise",
    "host": "host",
}  # fmt: skip
REACHED = [
    [],
    ["batch={phase: prefill, tokens_per_gpu: 64, context: 32}"],
    ["batch={phase: train, tokens_per_gpu: 64, context: 64, micro_batches: 2}", "comm.dispatch=nccl"],
    ["parallel={tensor_parallel_size: 2, data_parallel_size: 4, expert_parallel_size: 8}"],
    ["routing={router: switch_top1}"],
]


@pytest.mark.parametrize("changes", REACHED, ids=["decode", "prefill", "train", "tensor parallel", "router"])
def test_whatever_a_step_does_has_a_row(changes: list[str]) -> None:
    names = [one.operator for one in everything({}).figures]
    built = build(load("demo-tiny", ["batch.tokens_per_gpu=16", *changes]), seed=0)
    lowered = lower(built.plan, built.batches)
    for family in lowered.work:
        assert any(name.startswith(FAMILY[family]) for name in names), family
    moved = {name for name, coflow in zip(lowered.graph.name, lowered.graph.coflow, strict=True) if coflow >= 0}
    exchanged = {"dispatch", "combine", "dispatch_backward", "combine_backward"}
    for name in moved - exchanged:
        assert any(name.endswith(op) for op in COLLECTIVES), name
    assert built.plan.dispatch.algorithm.name in names


def test_every_all_to_all_and_attention_has_a_row_and_none_is_left_out_for_want_of_a_figure() -> None:
    point = Point({"kernel": "normal", "ep": "8"}, "us", measured=100.0, predicted=97.0)
    network = Validation("network", (point,), ("kernel", "ep"), {})
    figures = {one.operator: one for one in everything({"network": network}).figures}
    assert {*all_to_all.REGISTRY, *COLLECTIVES, *COMPUTE} <= figures.keys()
    assert figures["hierarchical_2d"].kind == "no figure" and figures["hierarchical_2d"].typical is None
    assert figures["deepep_normal"].kind == "published"
    assert figures["deepep_normal"].typical == pytest.approx(0.03)
