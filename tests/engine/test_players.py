"""Short stories, each with times worked out by hand. Links 0 and 1 leave lanes 0 and 1, links 2 and 3 enter them."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.engine import GraphBuilder, Join, Timeline, check_timeline, evaluate, simulate
from moesim.engine.graph import TaskGraph
from moesim.errors import Deadlock
from moesim.network import Coflow

US = 1_000_000  # ps
CAPACITY = np.full(4, 1e9)  # 1 kB takes 1 us


def exchange(sizes: list[list[int]], alpha: float = 0.0) -> Coflow:
    """Bytes [source][destination] between two lanes on a crossbar of 1 GB/s ports."""
    matrix = np.array(sizes)
    source, target = (column.astype(np.int32) for column in np.nonzero(matrix))
    path = np.stack([source, 2 + target], axis=1).astype(np.int32)
    ptr = np.searchsorted(source, np.arange(3)).astype(np.int64)
    return Coflow(2, ptr, source, target, matrix[source, target].astype(np.int64), path, alpha)


def both(graph: TaskGraph, barrier: bool = False) -> list[Timeline]:
    plays = [evaluate(graph, CAPACITY, barrier=barrier), simulate(graph, CAPACITY, barrier=barrier)]
    plays.append(simulate(graph, CAPACITY, network="port_load", barrier=barrier))
    for timeline in plays:
        check_timeline(graph, timeline)
    return plays


def test_a_stream_is_first_in_first_out_and_streams_are_independent() -> None:
    builder = GraphBuilder()
    builder.add("a", "work", "compute", [0], 2e-6)
    builder.add("b", "work", "compute", [0], 1e-6)
    builder.add("c", "work", "comm", [0], 1e-6)
    for timeline in both(builder.build()):
        assert timeline.start.tolist() == [0, 2 * US, 0]
        assert timeline.step_seconds == 3e-6


def test_lane_joins_follow_the_rank_and_group_joins_wait_for_all() -> None:
    builder = GraphBuilder()
    first = builder.add("first", "work", "compute", [0, 1], [1e-6, 4e-6])
    builder.add("same", "work", "a", [1, 0], 1e-6, after=[(first, Join.LANE)])
    builder.add("all", "work", "b", [0], 1e-6, after=[(first, Join.GROUP)])
    for timeline in both(builder.build()):
        assert timeline.start[2:].tolist() == [4 * US, 1 * US, 4 * US]


def test_releases_count_per_source_and_a_stream_is_held_until_its_own_bytes_are_through() -> None:
    builder = GraphBuilder()
    work = builder.add("work", "work", "compute", [0, 1], [0.0, 5e-6])
    send = builder.add("send", "send", "comm", [0, 1], coflow=exchange([[0, 2000], [0, 0]]), after=[(work, Join.LANE)])
    builder.add("next", "work", "comm", [0, 1], 1e-6)
    builder.add("here", "work", "a", [0, 1], 0.0, after=[(send, Join.ARRIVAL)])
    builder.add("over", "work", "b", [0, 1], 0.0, after=[(send, Join.LANE)])
    for timeline in both(builder.build()):
        assert timeline.start[4:6].tolist() == [2 * US, 5 * US]  # lane 0 is free once its 2 kB are out
        assert timeline.start[6:8].tolist() == [5 * US, 5 * US]  # lane 1, released last, might have sent more
        assert timeline.start[8:].tolist() == [5 * US, 5 * US]


def test_in_barrier_mode_nothing_moves_before_the_last_release() -> None:
    builder = GraphBuilder()
    work = builder.add("work", "work", "compute", [0, 1], [0.0, 5e-6])
    builder.add("send", "send", "comm", [0, 1], coflow=exchange([[0, 2000], [1000, 0]]), after=[(work, Join.LANE)])
    for timeline in both(builder.build(), barrier=True):
        assert timeline.end[2:].tolist() == [7 * US, 7 * US]
        assert timeline.arrival[2:].tolist() == [6 * US, 7 * US]


def test_alpha_passes_before_the_first_byte_even_if_there_is_none() -> None:
    builder = GraphBuilder()
    builder.add("send", "send", "comm", [0, 1], coflow=exchange([[0, 1000], [0, 0]], alpha=3e-6))
    builder.add("none", "send", "comm", [0, 1], coflow=exchange([[0, 0], [0, 0]], alpha=3e-6))
    for timeline in both(builder.build()):
        assert timeline.task_end.tolist() == [4 * US, 7 * US]


def test_two_coflows_on_one_link_share_it_in_the_fluid_network_and_are_counted_by_evaluate() -> None:
    builder = GraphBuilder()
    builder.add("a", "send", "a", [0, 1], coflow=exchange([[0, 2000], [0, 0]]))
    builder.add("b", "send", "b", [0, 1], coflow=exchange([[0, 2000], [0, 0]]))
    fast, fluid, _ = both(builder.build())
    assert fast.task_end.tolist() == [2 * US, 2 * US]
    assert fast.ignored_overlap_s == 2e-6
    assert fluid.task_end.tolist() == [4 * US, 4 * US]
    assert fluid.ignored_overlap_s == 0.0


def test_without_a_network_only_the_waiting_remains() -> None:
    builder = GraphBuilder()
    work = builder.add("work", "work", "compute", [0, 1], [0.0, 5e-6])
    coflow = exchange([[0, 2000], [1000, 0]], alpha=1e-6)
    send = builder.add("send", "send", "comm", [0, 1], coflow=coflow, after=[(work, Join.LANE)])
    builder.add("next", "work", "compute", [0, 1], 1e-6, after=[(send, Join.ARRIVAL)])
    assert evaluate(builder.build(), CAPACITY, network="none").step_seconds == 6e-6


@pytest.mark.parametrize("play", [evaluate, simulate])
def test_a_link_without_capacity_is_a_deadlock_that_names_the_task(play: object) -> None:
    builder = GraphBuilder()
    builder.add("dispatch", "send", "comm", [0, 1], coflow=exchange([[0, 1000], [0, 0]]))
    with pytest.raises(Deadlock, match=r"dispatch \(task 0\)"):
        play(builder.build(), np.array([0.0, 1e9, 1e9, 1e9]))  # type: ignore[operator]


def test_more_bandwidth_may_slow_another_flow() -> None:
    """Capacities [1, 4] against [10, 4], flows over {0, 1} and {1}: rates [1, 3] and [2, 2]. An example, no law."""

    path = np.array([[0, 1], [1, -1]], dtype=np.int32)
    source = np.array([0, 1], dtype=np.int32)
    coflow = Coflow(3, np.array([0, 1, 2, 2]), source, source * 0 + 2, np.array([400, 300]), path, 0.0)
    builder = GraphBuilder()
    builder.add("send", "send", "comm", [0, 1, 2], coflow=coflow)
    ends = [simulate(builder.build(), np.array([first, 4e9])).end[1] for first in (1e9, 10e9)]
    assert ends[0] < ends[1]


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 3), (2, 2), (4, 8), (8, 5)])
def test_one_forward_one_backward_takes_its_closed_form(stages: int, micro_batches: int) -> None:
    """(m + p - 1)(F + B), any m and p, no transfer time. Source: Narayanan et al., PipeDream-Flush / Megatron-LM."""
    forward, backward = 2e-6, 3e-6
    graph = one_forward_one_backward(stages, micro_batches, forward, backward)
    expected = (micro_batches + stages - 1) * (forward + backward)
    for timeline in both(graph):
        assert timeline.step_seconds == pytest.approx(expected, rel=1e-12)


def one_forward_one_backward(stages: int, micro_batches: int, forward: float, backward: float) -> TaskGraph:
    """Each stage warms up with p - rank - 1 forwards, alternates, drains; tasks are added as soon as they may be."""
    orders = []
    for stage in range(stages):
        warm = min(stages - stage - 1, micro_batches)
        steady = [verb for i in range(micro_batches - warm) for verb in (("F", warm + i), ("B", i))]
        drain = [("B", i) for i in range(micro_batches - warm, micro_batches)]
        orders.append([("F", i) for i in range(warm)] + steady + drain)
    builder, done = GraphBuilder(), dict[tuple[str, int, int], int]()
    while any(orders):
        for stage, order in enumerate(orders):
            if not order:
                continue
            verb, part = order[0]
            edge = stage > 0 if verb == "F" else stage < stages - 1
            needs = (verb, part, stage - 1 if verb == "F" else stage + 1)
            if edge and needs not in done:
                continue
            after = [(done[needs], Join.GROUP)] if edge else []
            seconds = forward if verb == "F" else backward
            done[verb, part, stage] = builder.add(verb, verb, "compute", [stage], seconds, after=after)
            order.pop(0)
    return builder.build()


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_uniform_all_to_all_takes_its_closed_form(ranks: int) -> None:
    """(n - 1) S / B on one non-blocking switch."""
    size, bandwidth = 1_000_000, 5e10
    source, target = (c.astype(np.int32) for c in np.nonzero(~np.eye(ranks, dtype=bool)))
    path = np.stack([source, ranks + target], axis=1).astype(np.int32)
    ptr = np.arange(ranks + 1, dtype=np.int64) * (ranks - 1)
    builder = GraphBuilder()
    coflow = Coflow(ranks, ptr, source, target, np.full(len(source), size), path, 0.0)
    builder.add("a2a", "send", "comm", range(ranks), coflow=coflow)
    for play in (evaluate, simulate):
        assert play(builder.build(), np.full(2 * ranks, bandwidth)).step_seconds == (ranks - 1) * size / bandwidth


def test_links_that_cannot_be_full_are_not_solved_for_and_are_never_full() -> None:
    """Two lanes of 1 GB/s over a trunk of 3 GB/s: 2 us for 2 kB, and only the port that takes both ends is full."""
    capacity = np.array([1e9, 1e9, 3e9, 1e9])
    path = np.array([[0, 2, 3], [1, 2, 3]], dtype=np.int32)
    owner_ptr = np.array([0, 1, 2, 2], dtype=np.int64)
    ends = (np.array([0, 1], dtype=np.int32), np.array([2, 2], dtype=np.int32))
    coflow = Coflow(3, owner_ptr, *ends, np.array([1000, 1000]), path, 0.0)
    builder = GraphBuilder()
    builder.add("send", "send", "comm", [0, 1, 2], coflow=coflow)
    timeline = simulate(builder.build(), capacity)
    assert timeline.task_end.tolist() == [2 * US]
    assert timeline.link_saturated is not None
    assert timeline.link_saturated.tolist() == pytest.approx([0, 0, 0, 2e-6])
    assert timeline.link_bytes.tolist() == [1000, 1000, 2000, 2000]
