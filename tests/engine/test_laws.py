"""Laws of the two players on random graphs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from moesim.engine import TaskGraph, check_timeline, evaluate, simulate
from moesim.engine.timeline import Timeline

sys.path.insert(0, str(Path(__file__).parent))
from random_graphs import graphs

Case = tuple[TaskGraph, npt.NDArray[np.float64]]
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def assert_equal(a: Timeline, b: Timeline) -> None:
    for column in ("start", "end", "arrival", "task_end"):
        np.testing.assert_array_equal(getattr(a, column), getattr(b, column), column)
    np.testing.assert_array_equal(a.link_bytes, b.link_bytes)


@pytest.mark.parametrize("barrier", [True, False])
@pytest.mark.parametrize("network", ["port_load", "none"])
@QUICK
@given(case=graphs())
def test_with_port_loads_both_players_agree_to_the_tick(case: Case, network: str, barrier: bool) -> None:
    graph, capacity = case
    fast = evaluate(graph, capacity, network=network, barrier=barrier)
    slow = simulate(graph, capacity, network=network, barrier=barrier)
    check_timeline(graph, fast)
    check_timeline(graph, slow)
    assert_equal(fast, slow)


@pytest.mark.parametrize("barrier", [True, False])
@QUICK
@given(case=graphs())
def test_port_loads_never_exceed_the_fluid_network(case: Case, barrier: bool) -> None:
    graph, capacity = case
    fast, slow = evaluate(graph, capacity, barrier=barrier), simulate(graph, capacity, barrier=barrier)
    check_timeline(graph, slow)
    tolerance = 2 * (1 + len(graph.coflows))  # each coflow rounds to a tick in both players
    assert np.all(fast.task_end <= slow.task_end + tolerance)
    assert np.all(fast.end <= slow.end + tolerance)


@QUICK
@given(case=graphs())
def test_links_carry_every_byte_once_per_hop(case: Case) -> None:
    graph, capacity = case
    timeline = simulate(graph, capacity)
    hops = [flow_bytes * (path >= 0).sum(axis=1) for flow_bytes, path in ((c.bytes, c.path) for c in graph.coflows)]
    assert timeline.link_bytes.sum() == sum(int(part.sum()) for part in hops)
    np.testing.assert_array_equal(timeline.link_bytes, evaluate(graph, capacity).link_bytes)


@QUICK
@given(case=graphs())
def test_no_link_carries_more_than_its_capacity(case: Case) -> None:
    graph, capacity = case
    timeline = simulate(graph, capacity)
    assert np.all(timeline.link_bytes <= capacity * (timeline.link_busy + 1e-11) * (1 + 1e-9))
