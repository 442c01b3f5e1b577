"""The compiled pass against its oracle: the TaskGraph that it was made of, through `evaluate`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import GraphBuilder, Join, Skeleton, State, TaskGraph, evaluate, play, values_of
from moesim.errors import Deadlock
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
