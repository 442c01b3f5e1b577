"""The clock of placements: a step that is filled anew is the step that is lowered anew."""

from __future__ import annotations

import numpy as np
import pytest

import moesim as ms
from moesim.engine import contention, evaluate
from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement import StepClock, Windows
from moesim.placement.clock import BlockSource
from moesim.studies import Outcome


@pytest.fixture(scope="module", params=["deepep_low_latency", "nccl"])
def found(request: pytest.FixtureRequest) -> Outcome:
    changes = (f"comm.dispatch={request.param}", "cluster.nodes=2", "overlap.schedule=two_batch")
    return ms.place("tiny-moe", "dgx-h100", 16, redundant=16, strategies=("greedy",), changes=changes)


def by_lowering(clock: StepClock, placement: Placement, windows: Windows) -> float:
    graph, capacity = clock.lowered(placement, windows).graph, clock.plan.fabric.capacity
    return evaluate(graph, capacity).step_seconds + contention(graph, capacity).seconds


def test_replicas_or_none_the_refilled_step_is_the_lowered_one(found: Outcome) -> None:
    clock, windows = found.problem.clock, found.split.deciding
    assert clock is not None
    layers, experts = found.problem.layers, found.problem.experts
    for placement in (found.placement, found.baseline.placement, Placement.contiguous(layers, experts, 16)):
        assert clock.seconds(placement, windows) == pytest.approx(by_lowering(clock, placement, windows), rel=1e-9)


def test_request_r_takes_the_rth_block_and_starts_over() -> None:
    tokens = np.arange(20, dtype=np.uint8).reshape(2, 10, 1)
    source = BlockSource("ten", tokens, 20, 4)  # blocks of tokens 0-3 and 4-7
    request, position = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4])
    assert source.experts(0, request, position).ravel().tolist() == [1, 6, 3, 4]
    assert source.experts(1, request, position).ravel().tolist() == [11, 16, 13, 14]
    with pytest.raises(BadInput, match="10 tokens hold no block of 11"):
        BlockSource("ten", tokens, 20, 11)
