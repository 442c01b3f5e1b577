"""The fluid network against stored finish times, laws, and a plain reference."""

from __future__ import annotations

from pathlib import Path
from random import Random

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


def filled_plainly(capacity: np.ndarray, route: list[list[int]], active: list[int]) -> dict[int, float]:
    """Progressive filling as the textbooks have it: the link with the least share per flow is full first."""
    rate: dict[int, float] = {}
    while len(rate) < len(active):
        share = {}
        for link in {link for flow in active for link in route[flow]}:
            waiting = [flow for flow in active if link in route[flow] and flow not in rate]
            taken = sum(rate[flow] for flow in active if link in route[flow] and flow in rate)
            if waiting:
                share[link] = (max(capacity[link] - taken, 0.0) / len(waiting), waiting)
        least, waiting = min(share.values(), key=lambda found: found[0])
        rate |= dict.fromkeys(waiting, least)
    return rate


def played_plainly(capacity: np.ndarray, route: list[list[int]], size: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Finish times by filling anew at every start and end."""
    left, finish, now = size.astype(np.float64), np.full(len(size), np.inf), 0.0
    while np.any(np.isinf(finish)):
        active = [flow for flow in range(len(size)) if start[flow] <= now and np.isinf(finish[flow])]
        rate = filled_plainly(capacity, route, active)
        ends = [left[flow] / rate[flow] for flow in active]
        step = min([*ends, *(start[start > now] - now)])
        for flow, end in zip(active, ends, strict=True):
            left[flow] -= rate[flow] * step
            if end <= step * (1 + 1e-12):
                finish[flow] = now + step
        now += step
    return finish


def csr(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    used = path >= 0
    return np.concatenate(([0], np.cumsum(used.sum(axis=1)))), path[used]


@settings(max_examples=60, deadline=None)
@given(networks(), st.lists(st.integers(0, 30), min_size=20, max_size=20))
def test_repair_agrees_with_filling_anew(network: tuple[np.ndarray, np.ndarray, np.ndarray], starts: list[int]) -> None:
    capacity, path, size = network
    start = np.array(starts[: len(size)], dtype=np.float64)
    route = [[int(link) for link in row if link >= 0] for row in path]
    expected = played_plainly(capacity, route, size, start)
    assert finish_times(capacity, *csr(path), size, start) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from([0.25, 3.0, 1e3, 1e6]))
def test_sizes_times_c_take_c_times_as_long(network: tuple[np.ndarray, np.ndarray, np.ndarray], c: float) -> None:
    capacity, path, size = network
    once, scaled = (finish_times(capacity, *csr(path), size * factor) for factor in (1.0, c))
    assert scaled == pytest.approx(c * once, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(networks(), st.randoms(use_true_random=False))
def test_names_of_links_and_order_of_flows_change_nothing(
    network: tuple[np.ndarray, np.ndarray, np.ndarray], random: Random
) -> None:
    capacity, path, size = network
    links, flows = (np.array(random.sample(range(n), n)) for n in (len(capacity), len(size)))
    renamed = np.append(np.argsort(links), -1).astype(np.int32)[path[flows]]
    found = finish_times(capacity[links], *csr(renamed), size[flows])
    assert found == pytest.approx(finish_times(capacity, *csr(path), size)[flows], rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(networks())
def test_port_loads_are_never_above_the_makespan(network: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    capacity, path, size = network
    load = np.zeros(len(capacity))
    np.add.at(load, path[path >= 0], np.repeat(size, (path >= 0).sum(axis=1)))
    assert np.max(load / capacity) <= finish_times(capacity, *csr(path), size).max() * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(networks())
def test_a_link_is_full_no_longer_than_busy_and_the_last_bottleneck_all_along(
    network: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    capacity, path, size = network
    net = FluidNet(capacity, 3)
    net.add(path, size)
    while (due := net.next_completion()) is not None:
        net.advance(due)
    net.rates()
    assert np.all(net.saturated <= net.busy * (1 + 1e-9))
    assert np.all(net.saturated * capacity <= net.carried * (1 + 1e-9))
    assert net.saturated.max() > 0


def test_the_window_gives_away_less_than_it_says() -> None:
    case = np.load(next(path for path in GOLDEN if path.stem == "a2a64_tok"))
    finish = finish_times(case["capacity"], case["ptr"], case["idx"], case["bytes"], window=0.01)
    error = np.abs(finish / case["finish"] - 1)
    assert error.mean() <= 1e-3 and error.max() <= 0.02


def test_the_stored_anomaly_is_one() -> None:
    """The only change is a faster first link, and the second flow ends later."""
    before, after = (np.load(next(p for p in GOLDEN if p.stem == f"anomaly_{when}")) for when in ("before", "after"))
    assert np.array_equal(np.flatnonzero(after["capacity"] != before["capacity"]), [0])
    assert after["capacity"][0] > before["capacity"][0]
    one, other = (finish_times(c["capacity"], c["ptr"], c["idx"], c["bytes"]) for c in (before, after))
    assert one[1] == pytest.approx(1.0) and other[1] == pytest.approx(1.5)


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


def test_every_link_that_carries_all_it_can_is_full_whichever_holds_the_flow_back() -> None:
    net = FluidNet(np.array([10.0, 10.0, 11.0]), 3)
    net.add(np.array([[0, 1, 2]], dtype=np.int32), np.array([20]))
    assert net.next_completion() == 2.0
    net.advance(2.0)
    assert net.saturated.tolist() == [2.0, 2.0, 0.0]


def test_paths_may_get_longer_than_those_that_came_first() -> None:
    net = FluidNet(np.array([10.0, 10.0, 4.0]), 1)
    net.add(np.array([[0]], dtype=np.int32), np.array([20]))
    net.add(np.array([[0, 1]], dtype=np.int32), np.array([20]))
    net.add(np.array([[0, 1, 2]], dtype=np.int32), np.array([20]))
    assert sorted(net.rates()[net.rates() > 0].tolist()) == pytest.approx([10 / 3] * 3)
