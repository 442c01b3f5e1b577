"""The fluid network against stored finish times, laws, and a plain reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import BadInput, Deadlock
from moesim.network.fluid import FluidNet, finish_times

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "data" / "network").glob("*.npz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: str(path.stem))
def test_every_flow_ends_when_the_reference_says(path: Path) -> None:
    case = np.load(path)
    finish = finish_times(case["capacity"], case["ptr"], case["idx"], case["bytes"], case["start"])
    assert finish == pytest.approx(case["finish"], rel=1e-9, abs=0)


@st.composite
def networks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    links, flows = draw(st.integers(1, 8)), draw(st.integers(1, 20))
    capacity = np.array(draw(st.lists(st.integers(1, 1000), min_size=links, max_size=links)), dtype=np.float64)
    path = np.full((flows, 3), -1, dtype=np.int32)
    for flow in range(flows):
        chosen = draw(st.lists(st.integers(0, links - 1), min_size=1, max_size=3, unique=True))
        path[flow, : len(chosen)] = chosen
    size = np.array(draw(st.lists(st.integers(1, 10**6), min_size=flows, max_size=flows)), dtype=np.int64)
    return capacity, path, size


@settings(max_examples=60, deadline=None)
@given(networks())
def test_rates_are_max_min_fair_at_every_instant(network: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    capacity, path, size = network
    net = FluidNet(capacity, 3)
    numbers = net.add(path, size)
    route = {int(number): [link for link in path[i] if link >= 0] for i, number in enumerate(numbers)}
    while (due := net.next_completion()) is not None:
        rate = net.rates()
        used = np.zeros(len(capacity))
        for flow, links in route.items():
            used[links] += rate[flow]
        assert np.all(used <= capacity * (1 + 1e-9))
        for flow, links in route.items():
            tight = [link for link in links if used[link] >= capacity[link] * (1 - 1e-9)]
            others = [max(rate[g] for g, through in route.items() if link in through) for link in tight]
            assert any(rate[flow] >= most * (1 - 1e-9) for most in others)
        for flow in net.advance(due):
            route.pop(int(flow))
    assert not route
    expected = np.zeros(len(capacity), dtype=np.int64)
    np.add.at(expected, path[path >= 0], np.repeat(size, (path >= 0).sum(axis=1)))
    assert np.array_equal(net.carried, expected)


def test_more_bandwidth_can_slow_a_flow_down() -> None:
    ptr, idx, size = np.array([0, 2, 3]), np.array([0, 1, 1], np.int32), np.array([10**6, 10**6])
    slow = finish_times(np.array([1.0, 4.0]), ptr, idx, size)
    fast = finish_times(np.array([10.0, 4.0]), ptr, idx, size)
    assert fast[1] > slow[1]


def test_a_dead_link_stalls_and_a_missing_route_is_named() -> None:
    with pytest.raises(Deadlock, match="1 flows are stalled"):
        finish_times(np.array([0.0]), np.array([0, 1]), np.array([0], np.int32), np.array([5]))
    with pytest.raises(BadInput, match="flow 0 has bytes and no route"):
        finish_times(np.array([1.0]), np.array([0, 0]), np.zeros(0, np.int32), np.array([5]))


def test_capacity_changes_and_aborted_flows() -> None:
    net = FluidNet(np.array([10.0]), 1)
    flow = net.add(np.array([[0]], np.int32), np.array([100]))
    net.advance(5.0)
    net.set_capacity(0, 0.0)
    assert net.next_completion() is None
    assert net.abort(flow) == pytest.approx([50.0])
    assert net.active == 0
