"""Schedules of a layer with experts over nodes: hand arithmetic, and limits that every policy has."""

from __future__ import annotations

import pytest

from moesim.studies import run
from moesim.training.expert_streams import (
    POLICIES,
    Operations,
    Phase,
    Policy,
    by_phase,
    in_turns,
    layer_seconds,
    played,
)

NONE = Operations(0, 0, 0, 0, 0)
PASSES = (Operations(8, 4, 6, 4, 3), Operations(8, 4, 12, 4, 6, gradients=5))


def test_in_one_part_all_is_added_up() -> None:
    seconds = dict.fromkeys(list(Phase), 1.0) | {Phase.EXPERTS: 4.0}
    assert [played(by_phase(1), seconds, apart, 1.5) for apart in (False, True)] == [8.0, 8.0]


def test_two_parts_by_hand() -> None:
    """Each phase takes 1: one stream of transfers is busy for 8; with slow experts turns begin them a part earlier."""
    seconds = dict.fromkeys(list(Phase), 1.0)
    assert played(by_phase(2), seconds, False, 1.0) == 8.0 and played(in_turns(2), seconds, False, 1.0) == 8.0
    slow = seconds | {Phase.EXPERTS: 5.0}
    assert played(by_phase(2), slow, False, 1.0) == 3 + 10 + 3 and played(in_turns(2), slow, False, 1.0) == 2 + 10 + 2
    assert played(by_phase(2), seconds, True, 1.0) == 6.0  # a stream each: five phases, and one part more


def test_two_streams_that_slow_each_other_twofold_win_nothing() -> None:
    """Dispatch of the second part beside gathering the first takes both 2, and so does the way back."""
    seconds = dict.fromkeys(list(Phase), 1.0)
    assert played(by_phase(2), seconds, True, 2.0) == 8.0


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_no_policy_beats_its_busiest_stream_nor_loses_to_one_part(policy: Policy) -> None:
    most = sum(one.alltoall + one.gather + one.experts + one.scatter + one.dense for one in PASSES) + 5
    assert 3 + 6 + max(16, 18) <= layer_seconds(policy, PASSES, NONE, 1.5) <= most


def test_every_step_of_adaptation_wins() -> None:
    found = [layer_seconds(policy, PASSES, NONE, 1.2) for policy in POLICIES]
    assert found == sorted(found, reverse=True) and found[0] > found[-1]


def test_start_ups_make_fewer_parts_better() -> None:
    """Where every part costs as much as the whole, cutting wins nothing: no r is better than one part."""
    whole = PASSES[0]
    assert layer_seconds(POLICIES[0], (whole, whole), whole, 1.0) == pytest.approx(2 * (8 + 4 + 6 + 4 + 3))


def test_on_infinite_links_only_compute_is_left() -> None:
    fast = tuple(Operations(0, 0, one.experts, 0, one.dense) for one in PASSES)
    assert [layer_seconds(policy, (fast[0], fast[1]), NONE, 1.5) for policy in POLICIES] == pytest.approx([27.0] * 4)


@pytest.mark.parametrize("testbed", ["a", "b"])
def test_shipped_testbeds_order_schedules_as_streams_allow(testbed: str) -> None:
    """Tutel is slowest; and the NIC of a node carries what its GPUs send: rows there and back, twice in two layers."""
    nodes, rate = {"a": (6, 25e9), "b": (8, 12.5e9)}[testbed]
    asked = ("overlap={schedule: tutel, degree: auto}", "overlap.inter_intra=false", "overlap.inter_intra=true")
    tutel, one_stream, fsmoe = (run(f"fsmoe-testbed-{testbed}", overrides=[each]) for each in asked)
    assert tutel.metrics["step_time_s"].value > one_stream.metrics["step_time_s"].value
    assert tutel.metrics["step_time_s"].value > 1.03 * fsmoe.metrics["step_time_s"].value
    sent = 4096 * 2 * (nodes - 1) / nodes * 2 * 4096  # tokens x top-k x those that leave x bytes of a row
    assert fsmoe.metrics["alltoall_s"].value == pytest.approx(2 * 4 * sent / rate, rel=0.02)
