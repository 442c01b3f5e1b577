"""What GraphBuilder and the checks refuse, and what a timeline can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesim.engine import (
    GraphBuilder,
    Join,
    Speed,
    TaskGraph,
    busy_seconds,
    check_integrity,
    check_timeline,
    choose_level,
    critical_path,
    evaluate,
    link_heat,
    simulate,
    stream_gaps,
)
from moesim.engine.sleeper import wait
from moesim.engine.slices import of_tasks
from moesim.errors import BadInput, BrokenInvariant, Deadlock
from moesim.network import Coflow

US = 1_000_000
NOTHING = np.zeros(0)


def chain() -> TaskGraph:
    """Rank 0 works 1 us, rank 1 3 us; both exchange 1 kB; both work 1 us."""
    builder = GraphBuilder()
    source = np.array([0, 1], dtype=np.int32)
    path = np.stack([source, 3 - source], axis=1).astype(np.int32)
    coflow = Coflow(2, np.array([0, 1, 2]), source, 1 - source, np.array([1000, 1000]), path, 0.0)
    work = builder.add("work", "work", "compute", [0, 1], [1e-6, 3e-6])
    send = builder.add("send", "send", "comm", [0, 1], coflow=coflow, after=[(work, Join.LANE)])
    builder.add("use", "use", "compute", [0, 1], 1e-6, after=[(send, Join.ARRIVAL)])
    return builder.build()


LINKS = np.full(4, 1e9)


def test_the_builder_names_the_task_it_refuses() -> None:
    builder = GraphBuilder()
    builder.add("a", "work", "compute", [0], 1e-6)
    for wrong in (
        {"ranks": [0, 0], "seconds": 1e-6},
        {"ranks": [], "seconds": 1e-6},
        {"ranks": [0]},
        {"ranks": [0], "seconds": float("nan")},
        {"ranks": [0], "seconds": -1.0},
        {"ranks": [0], "seconds": 1.0, "after": [(1, Join.LANE)]},
    ):
        with pytest.raises(BadInput, match=r"b \(task 1, layer 4\)"):
            builder.add("b", "work", "compute", layer=4, **wrong)


def test_a_join_needs_its_lane_and_an_arrival_needs_bytes() -> None:
    builder = GraphBuilder()
    first = builder.add("first", "work", "compute", [0], 1e-6)
    builder.add("second", "work", "compute", [0, 5], 1e-6, after=[(first, Join.LANE)])
    with pytest.raises(BadInput, match=r"second \(task 1\) on rank 5 waits for its lane of first"):
        builder.build()
    builder = GraphBuilder()
    first = builder.add("first", "work", "compute", [0], 1e-6)
    builder.add("second", "work", "compute", [0], 1e-6, after=[(first, Join.ARRIVAL)])
    with pytest.raises(BadInput, match="moves no bytes"):
        builder.build()


def test_tasks_in_a_circle_are_a_deadlock_that_names_them() -> None:
    graph = chain()
    builder = GraphBuilder()
    builder.add("a", "work", "compute", [0], 1e-6)
    builder.add("b", "work", "compute", [0], 1e-6, after=[(0, Join.LANE)])
    turned = replace(builder.build(), edge_ptr=np.array([0, 1, 1]), edge_from=np.array([1], dtype=np.int32))
    with pytest.raises(Deadlock, match=r"circle: a \(task 0\) -> b \(task 1\) -> a \(task 0\)"):
        check_integrity(turned)
    for play in (evaluate, simulate):
        with pytest.raises(Deadlock):
            play(turned, NOTHING)
    check_integrity(graph)


def test_a_timeline_that_breaks_its_graph_is_a_broken_invariant() -> None:
    graph = chain()
    timeline = evaluate(graph, LINKS)
    early = timeline.start.copy()
    early[4] -= 1
    with pytest.raises(BrokenInvariant, match="before an edge is met"):
        check_timeline(graph, replace(timeline, start=early))
    with pytest.raises(BrokenInvariant, match="did not run"):
        check_timeline(graph, replace(timeline, end=np.full_like(timeline.end, -1)))


def test_an_empty_graph_takes_no_time() -> None:
    graph = GraphBuilder().build()
    assert evaluate(graph, NOTHING).step_seconds == 0.0
    assert simulate(graph, NOTHING).step_seconds == 0.0


@pytest.mark.parametrize(
    ("tasks", "ends"), [([0, 1, 2], [3, 4, 5]), ([0, 1], [3, 4]), ([1, 2], [1, 2]), ([0, 2], [3, 4]), ([2], [1])]
)
def test_a_stretch_of_a_graph_keeps_the_waits_inside_it_and_is_free_of_all_others(
    tasks: list[int], ends: list[int]
) -> None:
    """Rank 1 works for 3 us, its kilobyte takes 1 us, and what uses it another; sends and work have streams apart."""
    part = of_tasks(chain(), np.array(tasks))
    assert part.name == tuple(("work", "send", "use")[task] for task in tasks)
    assert (simulate(part, LINKS).task_end / US).tolist() == ends


def test_the_critical_path_adds_up_to_the_step_and_names_the_slow_rank() -> None:
    graph = chain()
    for timeline in (evaluate(graph, LINKS), simulate(graph, LINKS)):
        path = critical_path(graph, timeline)
        assert graph.lane_rank[path.lane].tolist()[:2] == [1, 1]
        assert path.seconds_by_class(graph) == pytest.approx({"work": 3e-6, "send": 1e-6, "use": 1e-6})
        assert int((path.end - path.start).sum()) == timeline.step_ps


def test_rank_0_can_be_the_slow_one() -> None:
    builder = GraphBuilder()
    work = builder.add("work", "work", "compute", [0, 1], [3e-6, 1e-6])
    builder.add("use", "use", "compute", [0, 1], [2e-6, 1e-6], after=[(work, Join.GROUP)])
    graph = builder.build()
    path = critical_path(graph, evaluate(graph, LINKS))
    assert graph.lane_rank[path.lane].tolist() == [0, 0] and path.end.tolist() == [3 * US, 5 * US]


def test_busy_time_gaps_and_heat() -> None:
    graph = chain()
    timeline = evaluate(graph, LINKS)
    np.testing.assert_allclose(busy_seconds(graph, timeline), [[1e-6, 3e-6, 1e-6], [3e-6, 1e-6, 1e-6]])
    gaps = stream_gaps(graph, timeline)
    assert [(gaps.start[i], gaps.end[i]) for i in np.flatnonzero(gaps.rank == 0)] == [(0, US), (US, 4 * US)]
    heat = link_heat(timeline, 5, LINKS)
    np.testing.assert_allclose(heat[0], [0, 1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(heat.sum(axis=1) * 1000, timeline.link_bytes)
    assert timeline.link_busy.tolist() == [1e-6] * 4


def test_classes_that_run_together_slow_each_other() -> None:
    builder = GraphBuilder()
    builder.add("a", "gemm", "compute", [0, 1], 10e-6)
    builder.add("b", "copy", "other", [0], 4e-6)
    graph = builder.build()
    speed = Speed({("gemm", ("copy",)): 0.5})
    for play in (evaluate, simulate):
        timeline = play(graph, NOTHING, speed=speed, network="none")
        assert timeline.end.tolist() == [12 * US, 10 * US, 4 * US]
    both_slow = Speed({("gemm", ("copy",)): 0.5, ("copy", ("gemm",)): 0.25})
    assert evaluate(graph, NOTHING, speed=both_slow).end.tolist() == [18 * US, 10 * US, 16 * US]


def test_speed_takes_the_largest_listed_set_and_the_slowest_of_equals() -> None:
    speed = Speed({("a", ("b",)): 0.9, ("a", ("c",)): 0.8, ("a", ("b", "c")): 0.5})
    bit, table = speed.table(("a", "b", "c"))
    assert table[0, [0, bit[1], bit[2], bit[1] | bit[2]]].tolist() == [1.0, 0.9, 0.8, 0.5]
    pair = Speed({("a", ("b",)): 0.9, ("a", ("c",)): 0.8})
    assert pair.table(("a", "b", "c"))[1][0, 3] == 0.8
    with pytest.raises(BadInput, match="must be above 0"):
        Speed({("a", ("b",)): 0.0})
    with pytest.raises(BadInput, match="the network sets the rate"):
        simulate(chain(), LINKS, speed=Speed({("send", ("work",)): 0.5}))


def test_a_speed_of_one_everywhere_changes_nothing() -> None:
    graph = chain()
    plain = evaluate(graph, LINKS)
    for play in (evaluate, simulate):
        same = play(graph, LINKS, network="port_load", speed=Speed({("work", ("use",)): 1.0}))
        np.testing.assert_array_equal(plain.end, same.end)


def test_the_level_is_chosen_by_fault_sharing_oversubscription_and_wish() -> None:
    assert choose_level(gpus=512, oversubscription=1.0)[0] == "simulate"
    assert choose_level(gpus=513, oversubscription=1.0)[0] == "evaluate"
    assert choose_level(gpus=513, oversubscription=4.0) == ("simulate", "oversubscription 4:1 exceeds 2:1")
    assert choose_level(gpus=8, oversubscription=4.0, loop=True)[0] == "evaluate"
    assert choose_level(gpus=8, oversubscription=1.0, loop=True, fault_in_step=True)[0] == "simulate"
    assert choose_level(gpus=1024, oversubscription=1.0, fault_in_step=True)[0] == "simulate"
    assert choose_level(gpus=1024, oversubscription=1.0, shares_links=True)[0] == "simulate"
    assert choose_level(gpus=1024, oversubscription=1.0, collides=True)[0] == "simulate"
    assert choose_level(gpus=8, oversubscription=4.0, asked="port_load")[0] == "evaluate"
    assert choose_level(gpus=8, oversubscription=1.0, asked="fluid")[0] == "simulate"
    with pytest.raises(BadInput, match="network level"):
        choose_level(gpus=8, oversubscription=1.0, asked="packets")


def test_no_wait_is_anything_but_a_whole_number_of_ticks() -> None:
    import simpy

    for ticks in (float("nan"), float("inf"), -1, 0.5, True):
        with pytest.raises(BrokenInvariant, match="a wait of"):
            wait(simpy.Environment(), ticks)  # type: ignore[arg-type]


def test_the_hash_seed_has_no_effect() -> None:
    script = (
        "import hashlib\nfrom benchmarks.engine import decode_step, fabric\nfrom moesim.engine import simulate\n"
        "t = simulate(decode_step(layers=1, ranks=16), fabric(16))\n"
        "print(hashlib.sha256(t.start.tobytes() + t.end.tobytes() + t.arrival.tobytes()).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path.cwd())},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(prints) == 1
