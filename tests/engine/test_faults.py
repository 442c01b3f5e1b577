"""What a World does when links and ranks fail. One flow of 4 kB over link 0 or its spare, link 1, at 1 kB/us."""

from __future__ import annotations

from dataclasses import replace
from time import process_time

import numpy as np
import pytest

from moesim.engine import (
    NEVER,
    Fault,
    GraphBuilder,
    Join,
    TaskGraph,
    Timeline,
    World,
    check_timeline,
    mean_factors,
    simulate,
)
from moesim.errors import BadInput, Deadlock
from moesim.network import Coflow
from moesim.network.flows import Chain, Wires

US = 1_000_000
CAPACITY = np.full(2, 1e9)


def graph() -> TaskGraph:
    builder = GraphBuilder()
    ints = np.array([0], dtype=np.int32)
    flow = Coflow(2, np.array([0, 1, 1]), ints, ints + 1, np.array([4000]), np.zeros((1, 1), dtype=np.int32), 0.0)
    send = builder.add("send", "send", "comm", [0, 1], coflow=flow)
    builder.add("use", "work", "compute", [1], 1e-6, after=[(send, Join.ARRIVAL)])
    return builder.build()


def played(*faults: Fault) -> Timeline:
    timeline = simulate(graph(), CAPACITY, faults=faults)
    check_timeline(graph(), timeline)
    return timeline


def test_a_slower_link_stretches_what_is_left() -> None:
    timeline = played(Fault(at=1e-6, factor=0.5, link=0))
    assert timeline.task_end.tolist() == [7 * US, 8 * US]
    assert timeline.status == ("done", "done")


def test_faults_on_one_link_multiply() -> None:
    assert played(Fault(0.0, 0.5, link=0), Fault(0.0, 0.5, link=0)).task_end[0] == 16 * US


def test_a_dead_link_stalls_its_flows_until_it_is_repaired() -> None:
    timeline = played(Fault(at=1e-6, factor=0, link=0, until=11e-6))
    assert timeline.task_end[0] == 14 * US
    assert timeline.status[0] == "stalled"


def test_a_link_that_stays_dead_is_no_deadlock_but_an_incomplete_timeline() -> None:
    timeline = played(Fault(at=1e-6, factor=0, link=0))
    assert not timeline.complete
    assert timeline.task_end.tolist() == [NEVER, NEVER]
    assert timeline.stopped_by == ("link 0 at 0 of its speed from 1e-06 s for ever",)


def test_a_detour_carries_what_is_left_and_what_comes() -> None:
    for at in (1e-6, 0.0):
        timeline = played(Fault(at, 0, link=0, then="reroute", detour=(1,)))
        assert timeline.task_end[0] == 4 * US
        assert timeline.status[0] == "rerouted"


def test_an_aborted_coflow_ends_at_once_and_delivers_no_more() -> None:
    timeline = played(Fault(at=1e-6, factor=0, link=0, then="abort"))
    assert timeline.task_end.tolist() == [1 * US, 2 * US]
    assert timeline.status[0] == "aborted"
    assert timeline.link_bytes.tolist() == [1000, 0]


def fan(sizes: tuple[int, int], **more: object) -> TaskGraph:
    """Lane 0 sends over link 0 to lane 1, and over link 1 to lane 2; lanes 1 and 2 then work for 1 us."""
    path = np.array([[0], [1]], dtype=np.int32)
    source, target = np.zeros(2, dtype=np.int32), np.array([1, 2], dtype=np.int32)
    coflow = Coflow(3, np.array([0, 2, 2, 2]), source, target, np.array(sizes), path, 0.0, **more)  # type: ignore[arg-type]
    builder = GraphBuilder()
    send = builder.add("send", "send", "comm", [0, 1, 2], coflow=coflow)
    builder.add("use", "work", "compute", [1, 2], 1e-6, after=[(send, Join.ARRIVAL)])
    return builder.build()


def test_only_flows_on_the_dead_link_are_aborted() -> None:
    """4 kB each at 1 kB/us; link 0 dies after 1 us: lane 1 goes on at once, lane 2 has all its bytes after 4 us."""
    timeline = simulate(fan((4000, 4000)), CAPACITY, faults=[Fault(1e-6, 0, link=0, then="abort")])
    assert timeline.status[0] == "aborted"
    assert timeline.link_bytes.tolist() == [1000, 4000]
    assert timeline.end[3:].tolist() == [2 * US, 5 * US]
    assert timeline.carried[0].bytes.tolist() == [1000, 4000]


def test_a_detour_keeps_apart_what_each_path_carried() -> None:
    """1 kB over link 0; the other 3 kB share link 1 with 4 kB: at 7 us both are done, 1 + 3 + 3 and 4 kB by then."""
    timeline = simulate(fan((4000, 4000)), CAPACITY, faults=[Fault(1e-6, 0, link=0, then="reroute", detour=(1,))])
    assert timeline.link_bytes.tolist() == [1000, 7000]
    assert timeline.link_busy.tolist() == pytest.approx([1e-6, 7e-6])
    assert timeline.task_end[0] == 7 * US
    carried = timeline.carried[0]
    assert sorted(zip(carried.flow.tolist(), carried.path[:, 0].tolist(), carried.bytes.tolist(), strict=True)) == [
        (0, 0, 1000), (0, 1, 3000), (1, 1, 4000),
    ]  # fmt: skip


def test_a_detour_passes_its_kernels_port_and_takes_its_own_latency() -> None:
    """Links 0 and 1 of a cluster; link 2 is the kernel's port beside link 1, at half its rate. Link 1 adds 3 us."""
    wires = Wires(np.array([-1, 2], dtype=np.int32), np.array([1, 3]) * US)
    more = {"wires": wires, "latency": np.array([1, 3]) * US}
    fault = Fault(0.0, 0, link=0, then="reroute", detour=(1,))
    timeline = simulate(fan((4000, 0), **more), np.array([1e9, 1e9, 0.5e9]), faults=[fault])
    assert timeline.link_bytes.tolist() == [0, 4000, 4000]
    assert timeline.task_end[0] == 8 * US + 3 * US


@pytest.mark.parametrize(("at", "later"), [(0.0, 8), (4e-6, 4)])
def test_messages_of_a_ring_wait_for_the_latency_of_a_detour_as_often_as_they_are_still_to_come(
    at: float, later: int
) -> None:
    """Four messages follow each other, 1 us each by link 0 and 3 us by link 1: 8 us more than the start-up says, or 4
    where the fault strikes half way: 8 kB take 8 us.
    """
    wires = Wires(np.array([-1, -1], dtype=np.int32), np.array([1, 3]) * US)
    chain = Chain(np.zeros(2, dtype=np.int8), (4,), np.array([1, 1]) * US)
    fault = Fault(at, 0, link=0, then="reroute", detour=(1,))
    timeline = simulate(fan((8000, 0), wires=wires, chain=chain), CAPACITY, faults=[fault])
    assert timeline.task_end[0] == (8 + later) * US
    assert timeline.link_bytes.tolist() == ([0, 8000] if at == 0 else [4000, 4000])


def test_a_detour_quicker_than_the_slowest_of_a_chain_costs_nothing() -> None:
    chain = Chain(np.array([0, 0], dtype=np.int8), (4,), np.array([1, 9]) * US)
    wires = Wires(np.array([-1, -1], dtype=np.int32), np.array([1, 3]) * US)
    fault = Fault(0.0, 0, link=0, then="reroute", detour=(1,))
    timeline = simulate(fan((8000, 0), wires=wires, chain=chain), CAPACITY, faults=[fault])
    assert timeline.task_end[0] == 8 * US


def test_what_stands_still_for_ever_never_arrives() -> None:
    timeline = played(Fault(at=1e-6, factor=0, link=0))
    assert timeline.arrival[1] == NEVER and timeline.step_seconds == np.inf
    with pytest.raises(Deadlock, match=r"the step never ends: link 0 at 0 of its speed"):
        timeline.step_ps  # noqa: B018


def test_the_mean_of_what_a_link_has_left() -> None:
    """Of 8 us: 2 at full rate, 2 at half, 1 at a quarter, 3 at half."""
    rows = (Fault(2e-6, 0.5, link=1), Fault(4e-6, 0.5, link=1, until=5e-6), Fault(9e-6, 0, link=0))
    assert mean_factors(rows, 3, 8 * US).tolist() == pytest.approx([1.0, (2 + 1 + 0.25 + 1.5) / 8, 1.0])


def test_twice_the_faults_are_not_four_times_the_work() -> None:
    """Each row once at its strike and once at its repair; 2,000 took 55 s when all rows were read at every change."""

    def rows(count: int) -> list[Fault]:
        return [Fault(k * 1e-9, 0.5, link=k % 2, until=(k + 1) * 1e-9) for k in range(count)]

    def seconds(count: int) -> float:
        before = process_time()
        simulate(graph(), CAPACITY, faults=rows(count))
        return process_time() - before

    seconds(10)
    assert seconds(4000) < 3.2 * max(seconds(2000), 0.05)


def test_a_coflow_that_meets_a_dead_link_later_is_aborted_when_it_gets_there() -> None:
    timeline = played(Fault(at=0.0, factor=0, link=0, then="abort"))
    assert timeline.task_end[0] == 0
    assert timeline.link_bytes.tolist() == [0, 0]


def test_a_slow_rank_computes_slower_from_then_on() -> None:
    assert played(Fault(at=4.5e-6, factor=0.25, rank=1)).task_end[1] == 6.5 * US


def test_a_dead_rank_stops_the_step_and_is_named() -> None:
    timeline = played(Fault(at=0.0, factor=0, rank=1))
    assert timeline.task_end.tolist() == [4 * US, NEVER]
    assert timeline.stopped_by == ("rank 1 at 0 of its speed from 0 s for ever",)


@pytest.mark.parametrize(("factor", "at"), [(0.5, 0.0), (0.5, 1.0), (1e-300, 0.0)])
def test_a_rank_too_slow_for_the_clock_is_no_deadlock(factor: float, at: float) -> None:
    """46 days of work take 93 or more, of which the clock has 53."""
    builder = GraphBuilder()
    builder.add("long", "work", "compute", [0], 4e6)
    with pytest.raises(BadInput, match=r"long \(task 0\) ends too late: beyond the range of the clock, 53 days"):
        simulate(builder.build(), CAPACITY, faults=[Fault(at, factor, rank=0)])


def test_faults_that_come_later_change_nothing() -> None:
    np.testing.assert_array_equal(played(Fault(1.0, 0, link=0)).task_end, played().task_end)


def test_a_stall_that_no_fault_explains_is_a_deadlock() -> None:
    with pytest.raises(Deadlock, match=r"send \(task 0\) waits for bytes on links 0; use \(task 1\) waits for send"):
        simulate(graph(), np.array([0.0, 1e9]), faults=[Fault(0.0, 0.5, link=1)])


@pytest.mark.parametrize(
    "row",
    [
        {"at": -1.0, "factor": 0.5, "link": 0},
        {"at": 0.0, "factor": float("nan"), "link": 0},
        {"at": 2.0, "factor": 0.5, "link": 0, "until": 1.0},
        {"at": 0.0, "factor": 0.5},
        {"at": 0.0, "factor": 0.5, "link": 0, "rank": 0},
        {"at": 0.0, "factor": 0.5, "link": 0, "then": "abort"},
        {"at": 0.0, "factor": 0.0, "link": 0, "then": "reroute"},
        {"at": 0.0, "factor": 0.0, "link": 0, "then": "explode"},
    ],
)
def test_a_row_that_makes_no_sense_is_refused(row: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Fault(**row)  # type: ignore[arg-type]


def test_a_fault_needs_a_link_that_exists_and_the_fluid_network() -> None:
    with pytest.raises(BadInput, match="link 7 does not exist"):
        World(CAPACITY, faults=[Fault(0.0, 0.5, link=7)])
    with pytest.raises(BadInput, match="needs the fluid network"):
        World(CAPACITY, network="port_load", faults=[Fault(0.0, 0.5, link=0)])


def test_detours_over_each_other_are_no_way_round() -> None:
    both = (Fault(0.0, 0, link=0, then="reroute", detour=(1,)), Fault(0.0, 0, link=1, then="reroute", detour=(0,)))
    timeline = played(*both)
    assert timeline.status[0] == "stalled" and not timeline.complete
    repaired = played(both[0], replace(both[1], until=2e-6))
    assert repaired.task_end[0] == 6 * US


def test_graphs_in_one_world_share_its_links() -> None:
    world = World(CAPACITY)
    first, second = world.submit(graph()), world.submit(graph(), at=2 * US)
    world.run()
    assert first.value.task_end[0] == 6 * US  # 2 kB alone, 2 kB at half rate
    assert second.value.task_end[0] == 8 * US
    assert second.value.step_seconds == 7e-6
    with pytest.raises(BadInput, match="submitted for tick 0"):
        world.submit(graph(), at=0)


def test_a_graph_may_be_submitted_when_another_is_done() -> None:
    world = World(CAPACITY)
    ends = []

    def submit_again(event: object) -> None:
        ends.append(world.now)
        if len(ends) < 3:
            world.submit(graph()).callbacks.append(submit_again)

    world.submit(graph()).callbacks.append(submit_again)
    world.run()
    assert ends == [5 * US, 10 * US, 15 * US]


def test_graphs_that_are_submitted_at_one_instant_start_together() -> None:
    """Both share the link from their first byte, as if they were one submission: no order between them."""
    world = World(CAPACITY)
    events = [world.submit(graph(), at=3 * US) for _ in range(3)]
    world.run()
    assert [event.value.task_end[0] for event in events] == [15 * US] * 3


def test_a_deadlock_names_the_links_that_have_names() -> None:
    with pytest.raises(Deadlock, match="waits for bytes on links gpu0/nic_out"):
        simulate(graph(), np.array([0.0, 1e9]), link_name=["gpu0/nic_out", "spare"])
