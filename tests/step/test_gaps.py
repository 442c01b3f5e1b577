"""Gradients in the gaps between transfers, two streams of transfers, and degrees found by playing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.layout import dense_parameters
from moesim.schedules import INTRA, Fill, Verb, Way, find_schedule
from moesim.schedules.gradients import queued
from moesim.step import lower
from moesim.step.gaps import Gap, Waiting, _filled
from moesim.step.optimizer import shared_parameters
from moesim.studies import run
from moesim.studies.build import Built, build
from moesim.studies.load import load

SPREAD = (
    "batch={phase: train, tokens_per_gpu: 512, context: 256, micro_batches: 2}", "comm.dispatch=nccl",
    "cluster={topology: dgx-a100, nodes: 2}", "costs=roofline", "precision={}", "routing={balanced: true}",
    "parallel={data_parallel_size: 16, expert_parallel_size: 2, expert_tensor_parallel_size: 8}",
)  # fmt: skip


def built(*overrides: str) -> Built:
    return build(load("demo-tiny", (*SPREAD, *overrides)), 0)


def test_layers_and_vocabulary_are_all_that_is_not_expert() -> None:
    plan = built().plan
    layers = sum(plan.ops.spread.layer_parameters(layer) for layer in range(plan.model.num_layers))
    tables = (1 if plan.model.tie_embeddings else 2) * plan.ops.spread.head_gemm().parameters
    assert layers + tables == dense_parameters(plan.ops.spread)


def test_gaps_take_what_fits_first_come_first_reduced() -> None:
    gaps = [Gap(10, 0, 50), Gap(20, 100, 200), Gap(30, 300, 1000)]

    def layers() -> list[Waiting]:
        return [Waiting(1, 5, 20, 10, 100), Waiting(0, 25, 150, 10, 100)]

    # 30 of the first gap behind ps 20: 20 of 100; 100 of the second: 80 behind 10 to start; layer 0 is ready behind 25
    assert list(_filled(gaps, layers(), 0)) == [Fill(10, 1, 0.2), Fill(20, 1, 0.8), Fill(30, 0, 1.0)]
    # in quarters, 10 + 25 each: none in 30, two in 100, and so on
    found = list(_filled(gaps, layers(), 4))
    assert [(one.behind, one.layer) for one in found] == [(20, 1)] * 2 + [(30, 1)] * 2 + [(30, 0)] * 4
    assert list(_filled([Gap(10, 0, 35)], layers(), 0)) == []  # 5 in 15: less than its start-up is not worth one


def test_what_is_queued_stands_behind_its_node_and_waits_for_its_layer() -> None:
    plain = find_schedule("tutel")().step((True, True), 1, training=True)
    last = max(number for number, node in enumerate(plain) if node.verb == Verb.COMBINE and node.way == Way.BACKWARD)
    found = queued(plain, (Fill(last, 1, 0.5),), 2)
    assert len(found) == len(plain) + 1 and found[last + 1].verb == Verb.GRADIENTS
    waits = {(found[one].verb, found[one].layer) for one in found[last + 1].after}
    assert (Verb.ATTENTION, 1) in waits and all(layer == 1 for _, layer in waits)
    assert [node._replace(after=()) for node in found if node.verb != Verb.GRADIENTS] == [
        node._replace(after=()) for node in plain
    ]


@pytest.mark.parametrize("schedule", ["lina", "fsmoe"])
def test_no_byte_of_a_gradient_is_lost_or_sent_twice(schedule: str) -> None:
    plan = built(f"overlap.schedule={schedule}").plan
    assert plan.schedule.fills
    bare = replace(plan, schedule=plan.schedule.changed(fills=()))
    batches = built().batches
    sent = []
    for one in (plan, bare):
        graph = lower(one, batches).graph
        moved = [task for task, name in enumerate(graph.name) if name == "dense_reduce_scatter"]
        sent.append(sum(int(graph.coflows[graph.coflow[task]].bytes.sum()) for task in moved))
    assert sent[0] == pytest.approx(sent[1], rel=1e-4)  # parts are rounded up to bytes
    for fill in plan.schedule.fills:
        assert 0 < fill.share <= 1 and shared_parameters(plan, fill.layer) > 0
    by_layer = np.bincount([fill.layer for fill in plan.schedule.fills], [fill.share for fill in plan.schedule.fills])
    assert by_layer.max() <= 1 + 1e-9


def test_gradients_run_beside_the_last_backward_pass_and_delay_no_all_to_all() -> None:
    """With even rows, as the schedule believes, the rest of the step keeps its times."""
    plan, batches = built("overlap.schedule=lina").plan, built().batches
    ends = []
    for one in (plan, replace(plan, schedule=plan.schedule.changed(fills=()))):
        lowered = lower(one, batches)
        line = evaluate(lowered.graph, plan.fabric.capacity)
        layers = np.array([node.verb not in (Verb.GRADIENTS, Verb.OPTIMIZER) for node in lowered.nodes])[line.task]
        ends.append((line.end[layers], line.step_ps))
    assert np.array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] < ends[1][1]


def test_each_pass_has_its_own_degree() -> None:
    plan = built("overlap={schedule: tutel, degree: 2, degree_backward: 4}").plan
    nodes = plan.nodes(2, training=True)
    parts = {way: {n.part.of for n in nodes if n.verb == Verb.EXPERTS and n.way == way} for way in Way}
    assert (parts[Way.FORWARD], parts[Way.BACKWARD]) == ({2}, {4})
    same = built("overlap={schedule: tutel, degree: 4}").plan.nodes(2, training=True)
    backward = [[one._replace(after=()) for one in of if one.way == Way.BACKWARD] for of in (nodes, same)]
    assert backward[0] == backward[1]


def test_a_degree_that_is_found_is_the_shortest_of_all() -> None:
    found = run("demo-tiny", overrides=[*SPREAD, "overlap={schedule: tutel, degree: auto}"])
    degrees = found.provenance["overlap"]
    times = {
        (one, two): run(
            "demo-tiny", overrides=[*SPREAD, f"overlap={{schedule: tutel, degree: {one}, degree_backward: {two}}}"]
        ).metrics["step_time_s"].value
        for one in (1, 2, 4) for two in (1, 2, 4)
    }  # fmt: skip
    assert found.metrics["step_time_s"].value <= min(times.values()) * (1 + 1e-12)
    assert times.get((degrees["degree"], degrees["degree_backward"]), found.metrics["step_time_s"].value) == (
        found.metrics["step_time_s"].value
    )


def test_streams_inside_and_between_nodes_are_apart_only_where_both_have_work() -> None:
    apart = built("overlap.schedule=fsmoe")
    streams = lower(apart.plan, apart.batches).graph.streams
    assert INTRA in streams
    one = run("demo-tiny", overrides=[
        *SPREAD[:2], *SPREAD[3:6], "parallel={data_parallel_size: 8, expert_parallel_size: 8}",
        "overlap.schedule=fsmoe",
    ])  # fmt: skip
    assert any("its second stream is empty" in note for note in one.warnings)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("batch={phase: prefill, tokens_per_gpu: 64, context: 64}", "overlap.schedule=lina"), "order of training"),
        (("batch={phase: prefill, tokens_per_gpu: 64, context: 64}", "overlap={schedule: tutel, degree: auto}"),
         "auto plays a training step"),
        (("overlap={schedule: two_batch, degree: auto}",), "two_batch has no degree"),
        (("overlap={schedule: two_batch, degree_backward: 2}",), "two_batch has no degree_backward"),
        (("overlap.schedule=lina", "parallel={data_parallel_size: 16, expert_parallel_size: 8}"), "here are 2"),
    ],
)  # fmt: skip
def test_what_has_nothing_to_act_on_is_refused(overrides: tuple[str, ...], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        built(*overrides)
