"""Laws of the two players on random graphs: 1 to 64 ranks, uneven releases, zero-byte pairs, shared links."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import (
    Fault,
    GraphBuilder,
    Join,
    Speed,
    TaskGraph,
    Timeline,
    check_timeline,
    evaluate,
    simulate,
)
from moesim.network import Coflow

Floats = npt.NDArray[np.float64]
PER_NODE = 4


def coflow(matrix: npt.NDArray[np.int64], devices: npt.NDArray[np.int32], world: int, alpha: float = 0.0) -> Coflow:
    """int64[R, R] bytes between devices -> Coflow; same node: up, down; else out, one shared spine link, in."""
    owner, target = (column.astype(np.int32) for column in np.nonzero(np.ones_like(matrix)))
    source_device, target_device = devices[owner], devices[target]
    near = source_device // PER_NODE == target_device // PER_NODE
    path = np.full((len(owner), 3), -1, dtype=np.int32)
    path[near, 0], path[near, 1] = source_device[near], world + target_device[near]
    path[~near, 0], path[~near, 1] = 2 * world + source_device[~near], 4 * world
    path[~near, 2] = 3 * world + target_device[~near]
    ptr = np.arange(len(devices) + 1, dtype=np.int64) * len(devices)
    return Coflow(len(devices), ptr, owner, target, matrix[owner, target], path, alpha)


def capacities(world: int, spine: float) -> Floats:
    """float64[4 * world + 1] B/s."""
    return np.concatenate((np.repeat([4e9, 4e9, 1e9, 1e9], world), [spine * world * 1e9]))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[TaskGraph, Floats]:
    """A graph in program order on two streams, and the capacities of its links."""
    world = draw(st.sampled_from([1, 2, 3, 5, 8, 16, 64]))
    random = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32 - 1))))
    builder = GraphBuilder()
    kinds: list[bool] = []
    members: list[npt.NDArray[np.int32]] = []
    for task in range(draw(st.integers(1, 10))):
        is_coflow = bool(random.random() < 0.4)
        size = int(random.integers(1, world + 1))
        ranks = (
            random.permutation(world)[:size].astype(np.int32)
            if random.random() < 0.5
            else np.arange(world, dtype=np.int32)
        )
        after = [
            (int(earlier), join)
            for earlier in random.permutation(task)[: random.integers(0, 3)]
            for join in (_join(random, kinds[earlier], members[earlier], ranks),)
        ]
        _add(builder, random, task, is_coflow, ranks, world, after)
        kinds.append(is_coflow)
        members.append(ranks)
    return builder.build(), capacities(world, draw(st.sampled_from([0.25, 1.0])))


def _join(
    random: np.random.Generator, on_coflow: bool, earlier: npt.NDArray[np.int32], ranks: npt.NDArray[np.int32]
) -> Join:
    if not np.isin(ranks, earlier).all():
        return Join.GROUP
    return Join(int(random.choice([Join.LANE, Join.GROUP, Join.ARRIVAL] if on_coflow else [Join.LANE, Join.GROUP])))


def _add(
    builder: GraphBuilder, random: np.random.Generator, task: int, is_coflow: bool, ranks: npt.NDArray[np.int32],
    world: int, after: list[tuple[int, Join]],
) -> None:  # fmt: skip
    size = len(ranks)
    if not is_coflow:
        seconds = random.choice([0.0, 1e-6, 3e-6], size) * random.random(size)
        builder.add(f"work{task}", "work", str(random.choice(["compute", "comm"])), ranks, seconds, after=after)
        return
    matrix = random.integers(0, 20_000, (size, size)) * (random.random((size, size)) < (0.7 if size <= 8 else 4 / size))
    np.fill_diagonal(matrix, 0)
    alpha = float(random.choice([0.0, 1e-6]))
    moved = coflow(matrix.astype(np.int64), ranks, world, alpha)
    builder.add(f"send{task}", "send", "comm", ranks, coflow=moved, after=after)


Case = tuple[TaskGraph, npt.NDArray[np.float64]]
QUICK = settings(max_examples=80, deadline=None, derandomize=True)


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


@QUICK
@given(case=graphs())
def test_without_a_network_is_with_infinite_links_and_no_start_up(case: Case) -> None:
    graph, capacity = case
    free = replace(graph, coflows=tuple(replace(moved, alpha=0.0) for moved in graph.coflows))
    none, infinite = evaluate(graph, capacity, network="none"), evaluate(free, np.full(len(capacity), np.inf))
    for column in ("start", "end", "arrival", "task_end"):
        np.testing.assert_array_equal(getattr(none, column), getattr(infinite, column), column)
    assert not len(none.transfers.bytes)


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


@pytest.mark.parametrize("network", ["fluid", "port_load"])
@QUICK
@given(case=graphs())
def test_playing_ahead_of_the_network_changes_nothing(case: Case, network: str) -> None:
    """A speed that never applies makes the player keep pace with everybody else's events."""
    graph, capacity = case
    idle = Speed({("work", ("absent",)): 0.5})
    assert_equal(simulate(graph, capacity, network=network), simulate(graph, capacity, network=network, speed=idle))


@QUICK
@given(case=graphs(), factor=st.sampled_from([0.5, 0.8]))
def test_interference_lies_between_full_and_least_speed(case: Case, factor: float) -> None:
    graph, capacity = case
    slow = Speed({("work", ("send",)): factor, ("work", ("work",)): factor})
    played = evaluate(graph, capacity, speed=slow)
    check_timeline(graph, played)
    work = graph.coflow[graph.lane_task] < 0
    lasted, alone = (played.end - played.start)[work], graph.lane_ps[work]
    assert np.all(lasted >= alone)
    assert np.all(lasted <= alone / factor + 20)
    assert_equal(played, simulate(graph, capacity, network="port_load", speed=slow))


@QUICK
@given(case=graphs(), seed=st.integers(0, 2**32 - 1))
def test_under_faults_everything_ends_or_is_explained_and_bytes_are_kept(case: Case, seed: int) -> None:
    graph, capacity = case
    timeline = simulate(graph, capacity, faults=random_faults(np.random.default_rng(seed), graph, len(capacity)))
    check_timeline(graph, timeline)
    assert timeline.complete == (timeline.stopped_by == ())
    if timeline.complete and not {"aborted", "rerouted"} & set(timeline.status):
        np.testing.assert_array_equal(timeline.link_bytes, evaluate(graph, capacity).link_bytes)


def random_faults(random: np.random.Generator, graph: TaskGraph, links: int) -> list[Fault]:
    faults = []
    for _ in range(int(random.integers(1, 5))):
        at = float(random.random() * 2e-5)
        until = at + float(random.random() * 1e-4) + 1e-9 if random.random() < 0.7 else None
        factor = float(random.choice([0.0, 0.0, 0.3]))
        if random.random() < 0.25:
            faults.append(Fault(at, factor, rank=int(random.integers(graph.num_ranks)), until=until))
            continue
        link, spare = (int(link) for link in random.permutation(links)[:2])
        then = str(random.choice(["stall", "abort", "reroute"])) if factor == 0 else "stall"
        detour = (spare,) if then == "reroute" else ()
        faults.append(Fault(at, factor, link=link, until=until, then=then, detour=detour))
    return faults
