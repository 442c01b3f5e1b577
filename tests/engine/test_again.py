"""A graph played again with other seconds and links is `evaluate`, to the tick; its collectives share pair lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import Again, TaskGraph, evaluate
from moesim.step import lower
from moesim.studies import load
from moesim.studies.build import build
from tests.engine.test_laws import graphs
from tests.engine.test_pass import Floats


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(0, 2**32 - 1))
def test_any_graph_again(case: tuple[TaskGraph, Floats], seed: int) -> None:
    graph, capacity = case
    again = Again.of(graph)
    faster = capacity * np.random.default_rng(seed).choice([0.5, 1.0, 3.0])
    assert again.ps(graph.lane_ps, again.skeleton.pairs(faster)) == int(evaluate(graph, faster).task_end.max())


@pytest.mark.parametrize(
    "overrides",
    [
        ("batch.tokens_per_gpu=8",),
        ("batch.tokens_per_gpu=8", "overlap.schedule=two_batch", "comm.dispatch=deepep_normal"),
        (
            "batch.tokens_per_gpu=8", "comm.dispatch=nccl",
            "parallel={tensor_parallel_size: 2, data_parallel_size: 4, expert_parallel_size: 8}",
        ),
    ],
)  # fmt: skip
def test_a_step_with_other_errors(overrides: tuple[str, ...]) -> None:
    built = build(load("demo-tiny", overrides), 0)
    lowered, capacity = lower(built.plan, built.batches), built.plan.fabric.capacity
    again = Again.of(lowered.graph)
    for draw in ({}, {"gemm": 1.3, "grouped_gemm": 0.8}, {"network": 1.5}):
        graph, links = lowered.play_as(draw), capacity / draw.get("network", 1.0)
        assert again.ps(graph.lane_ps, again.skeleton.pairs(links)) == int(evaluate(graph, links).task_end.max())
    assert len(again.skeleton.patterns) < len(lowered.graph.coflows) / 4
