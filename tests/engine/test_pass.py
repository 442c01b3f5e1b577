"""The compiled pass against its oracle: the TaskGraph that it was made of, through `evaluate`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import (
    Beside,
    GraphBuilder,
    Join,
    Skeleton,
    Speed,
    State,
    TaskGraph,
    evaluate,
    play,
    simulate,
    values_of,
)
from moesim.errors import BadInput, Deadlock
from tests.engine.test_laws import capacities, coflow, graphs

Floats = npt.NDArray[np.float64]


def clocks(graph: TaskGraph, capacity: Floats) -> tuple[npt.NDArray[np.int64], int]:
    """int64[ranks, streams] last ends, and the last tick, by `evaluate`."""
    timeline = evaluate(graph, capacity)
    found = np.zeros((graph.num_ranks, len(graph.streams)), dtype=np.int64)
    np.maximum.at(found, (graph.lane_rank, graph.stream[graph.lane_task]), timeline.end)
    return found, int(timeline.task_end.max())


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_the_pass_is_evaluate_to_the_tick(case: tuple[TaskGraph, Floats]) -> None:
    graph, capacity = case
    skeleton = Skeleton.of(graph)
    zero = State.at_zero(graph.num_ranks, len(graph.streams))
    state, end = play(skeleton, values_of(graph), skeleton.pairs(capacity), zero)
    clock, last = clocks(graph, capacity)
    assert end == last and np.array_equal(state.clock, clock)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 8, 16]), st.booleans())
def test_an_exchange_of_all_pairs_takes_one_sweep(seed: int, world: int, spine: bool) -> None:
    graph, capacity = one_exchange(seed, world), capacities(world, 1.0 if spine else 0.05)
    skeleton = Skeleton.of(graph)
    pairs = skeleton.pairs(capacity)
    state, end = play(skeleton, values_of(graph), pairs, State.at_zero(world, 2))
    clock, last = clocks(graph, capacity)
    assert (end, state.clock.tolist()) == (last, clock.tolist())
    assert pairs.swept.all() == (spine or world <= 4)  # a spine slower than a port has to be looked up


def one_exchange(seed: int, world: int) -> TaskGraph:
    """Uneven compute, then every pair of ranks that differ exchanges bytes, some none."""
    draw, ranks = np.random.default_rng(seed), np.arange(world, dtype=np.int32)
    builder = GraphBuilder()
    builder.add("work", "work", "compute", ranks, draw.integers(0, 5, world) * 1e-6)
    bytes_ = draw.integers(0, 5000, (world, world)) * (draw.random((world, world)) < 0.7)
    full = coflow(bytes_, ranks, world, 1e-6)
    away = full.source != full.destination
    ptr = np.concatenate(([0], np.cumsum(np.bincount(full.source[away], minlength=world))))
    pairs = type(full)(world, ptr, full.source[away], full.destination[away], full.bytes[away], full.path[away], 1e-6)
    builder.add("exchange", "exchange", "comm", ranks, coflow=pairs, after=[(0, Join.LANE)])
    return builder.build()


@pytest.mark.parametrize("since", [2**53 - 10**6, 2**53 + 1, 2**53 + 999])
def test_hours_later_an_exchange_takes_as_long_to_the_tick(since: int) -> None:
    """From 2^53 ps (150 minutes) on a float holds every other tick only."""
    graph, capacity = one_exchange(3, 8), capacities(8, 1.0)
    skeleton = Skeleton.of(graph)
    given = values_of(graph), skeleton.pairs(capacity)
    at_once, end = play(skeleton, *given, State.at_zero(8, 2))
    late, later = play(skeleton, *given, State(np.full((8, 2), since), np.full(8, since)))
    assert later - since == end and np.array_equal(late.clock - since, at_once.clock)


@pytest.mark.parametrize("times", [2, 5])
def test_patterns_played_one_after_the_other_are_one_long_graph(times: int) -> None:
    def layer(builder: GraphBuilder, seed: int) -> None:
        draw, ranks = np.random.default_rng(seed), np.arange(8, dtype=np.int32)
        first = builder.add("a", "a", "compute", ranks, draw.random(8) * 1e-5)
        sent = builder.add("b", "b", "comm", ranks, coflow=coflow(draw.integers(0, 9999, (8, 8)), ranks, 8),
                           after=[(first, Join.LANE)])  # fmt: skip
        builder.add("c", "c", "compute", ranks, draw.random(8) * 1e-5, after=[(sent, Join.ARRIVAL)])

    whole, capacity = GraphBuilder(), capacities(8, 1.0)
    state = State.at_zero(8, 2)
    for seed in range(times):
        layer(whole, seed)
        part = GraphBuilder()
        layer(part, seed)
        graph = part.build()
        skeleton = Skeleton.of(graph)
        state, end = play(skeleton, values_of(graph), skeleton.pairs(capacity), state)
    clock, last = clocks(whole.build(), capacity)
    assert end == last and np.array_equal(state.clock, clock)


def test_what_arrives_late_holds_back_what_waits_for_nothing_else() -> None:
    builder = GraphBuilder()
    builder.add("a", "a", "compute", [0, 1], [1e-6, 1e-6])
    graph = builder.build()
    skeleton = Skeleton.of(graph)
    late = State(np.zeros((2, 1), np.int64), np.array([0, 7_000_000]))
    state, end = play(skeleton, values_of(graph), skeleton.pairs(np.ones(1)), late)
    assert state.clock.ravel().tolist() == [1_000_000, 8_000_000] and end == 8_000_000


def test_bytes_over_a_dead_link_are_a_deadlock() -> None:
    graph, capacity = one_exchange(0, 8), capacities(8, 1.0)
    capacity[2 * 8] = 0.0
    skeleton = Skeleton.of(graph)
    with pytest.raises(Deadlock, match="exchange .* without capacity"):
        play(skeleton, values_of(graph), skeleton.pairs(capacity), State.at_zero(8, 2))


def beside(graph: TaskGraph, capacity: Floats, speed: Speed, state: State | None = None) -> tuple[State, int]:
    """The compiled pass with classes that slow each other."""
    skeleton = Skeleton.of(graph)
    zero = State.at_zero(graph.num_ranks, len(graph.streams))
    return Beside.of(skeleton, skeleton.pairs(capacity), speed).play(values_of(graph), state or zero)


@settings(max_examples=200, deadline=None)
@given(graphs(), st.sampled_from([0.5, 0.8, 1.0]), st.booleans())
def test_with_interference_the_pass_is_the_world_to_the_tick(
    case: tuple[TaskGraph, Floats], factor: float, both: bool
) -> None:
    graph, capacity = case
    slowed = {("work", ("send",)): factor, ("work", ("work",)): 0.7, ("work", ("send", "work")): 0.4}
    speed = Speed(slowed if both else {("work", ("send",)): factor})
    timeline = simulate(graph, capacity, network="port_load", speed=speed)
    clock = np.zeros((graph.num_ranks, len(graph.streams)), dtype=np.int64)
    np.maximum.at(clock, (graph.lane_rank, graph.stream[graph.lane_task]), timeline.end)
    state, end = beside(graph, capacity, speed)
    assert end == timeline.task_end.max() and np.array_equal(state.clock, clock)


def test_a_gemm_beside_a_copy_by_hand() -> None:
    """3 us of work beside a copy that takes the first 2 us at half speed: 1 us of it is done by then, 2 are left."""
    builder, ranks = GraphBuilder(), np.array([0, 1], dtype=np.int32)
    sent = coflow(np.array([[0, 8000], [0, 0]]), ranks, 2)  # 8,000 bytes at 4 GB/s
    builder.add("copy", "copy", "comm", ranks, coflow=sent)
    builder.add("gemm", "gemm", "compute", ranks, np.array([3e-6, 3e-6]))
    state, end = beside(builder.build(), capacities(2, 1.0), Speed({("gemm", ("copy",)): 0.5}))
    assert end == 4_000_000 and state.clock.tolist() == [[2_000_000, 4_000_000]] * 2


def test_interference_carries_clocks_on() -> None:
    ranks, capacity, speed = np.arange(8, dtype=np.int32), capacities(8, 1.0), Speed({("work", ("send",)): 0.5})

    def layer(builder: GraphBuilder, seed: int, after: list[tuple[int, Join]]) -> list[tuple[int, Join]]:
        draw = np.random.default_rng(seed)
        sent = coflow(draw.integers(0, 9999, (8, 8)), ranks, 8)
        one = builder.add("a", "work", "compute", ranks, draw.random(8) * 1e-5, after=after)
        two = builder.add("b", "send", "comm", ranks, coflow=sent, after=after)
        return [(builder.add(name, "join", name, ranks, 0.0, after=[(one, Join.LANE), (two, Join.LANE)]), Join.LANE)
                for name in ("compute", "comm")]  # fmt: skip

    whole, after = GraphBuilder(), list[tuple[int, Join]]()
    state = State.at_zero(8, 2)
    for seed in range(3):
        after, part = layer(whole, seed, after), GraphBuilder()
        layer(part, seed, [])
        state, end = beside(part.build(), capacity, speed, state)
    assert (end, state.clock.tolist()) == (
        (found := beside(whole.build(), capacity, speed))[1],
        found[0].clock.tolist(),
    )


def test_a_collective_cannot_be_slowed() -> None:
    with pytest.raises(BadInput, match="the network sets the rate"):
        beside(one_exchange(0, 8), capacities(8, 1.0), Speed({("exchange", ("work",)): 0.5}))
