"""Nodes become tasks: what schedules may ask for beside those that ship."""

from __future__ import annotations

import pytest

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.schedules import WHOLE, Node, Order, Schedule, Verb, Way, add_backward
from moesim.step import lower
from moesim.studies import load
from moesim.studies.build import Built, build

TRAIN = ("batch={phase: train, tokens_per_gpu: 128, context: 64, micro_batches: 2}", "comm.dispatch=nccl")


def built(*overrides: str) -> Built:
    return build(load("demo-tiny", overrides), 0)


def paired_nodes(moe: list[bool], schedule: Schedule) -> tuple[Node, ...]:
    """Forward of micro-batch 1 beside the backward of micro-batch 0, node by node, as DualPipe pairs them."""
    alone = schedule.step(moe, 1, training=True)[1:]
    half = next(number for number, node in enumerate(alone) if node.way != Way.FORWARD)
    order = Order((WHOLE,))
    place: dict[tuple[int, int], int] = {}

    def put(micro_batch: int, number: int) -> None:
        node = alone[number]
        after = tuple(place[micro_batch, one - 1] if one else 0 for one in node.after)
        order.nodes.append(node._replace(micro_batch=micro_batch, after=after))
        place[micro_batch, number] = len(order.nodes) - 1

    for number in range(half):
        put(0, number)
    for step in range(max(half, len(alone) - half)):
        for micro_batch, number, limit in ((0, half + step, len(alone)), (1, step, half)):
            if number < limit:
                put(micro_batch, number)
    for number in range(half, len(alone)):
        put(1, number)
    return tuple(order.nodes)


def test_the_forward_of_one_micro_batch_can_be_paired_with_the_backward_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = built(*TRAIN)
    schedule, capacity = one.plan.schedule, one.plan.fabric.capacity
    plain = lower(one.plan, one.batches)
    moe = [layer in one.plan.model.moe_layers for layer in range(one.plan.model.num_layers)]
    nodes = paired_nodes(moe, schedule)
    monkeypatch.setattr(type(one.plan), "nodes", lambda *_: nodes)
    paired = lower(one.plan, one.batches)
    assert sorted(zip(paired.graph.name, paired.graph.layer, strict=True)) == sorted(
        zip(plain.graph.name, plain.graph.layer, strict=True)
    )
    assert (paired.load == plain.load).all() and (paired.sent == plain.sent).all()
    assert (paired.received == plain.received).all()
    apart, together = (evaluate(found.graph, capacity).step_seconds for found in (plain, paired))
    assert together < 0.95 * apart  # what is sent of one is hidden by computing of the other
    busy = sum(
        plain.graph.lane_seconds[plain.graph.lanes(task)].max()
        for task, name in enumerate(plain.graph.name) if plain.graph.coflow[task] < 0
    )  # fmt: skip
    assert together > 0.9 * busy


def test_gradients_of_inputs_and_weights_apart_take_as_long_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = built(*TRAIN)
    moe = [layer in one.plan.model.moe_layers for layer in range(one.plan.model.num_layers)]
    together = one.plan.schedule.step(moe, 1, training=True)
    order = Order((WHOLE,))
    one.plan.schedule.forward(order, moe)
    add_backward(order, dict(enumerate(order.nodes[1:], 1)))
    backward = [number for number, node in enumerate(order.nodes) if node.way == Way.BACKWARD]
    apart = [node._replace(way=Way.BACKWARD_DATA) if node.way == Way.BACKWARD else node for node in order.nodes]
    weights = [
        order.nodes[number]._replace(way=Way.BACKWARD_WEIGHT, after=(number,)) for number in backward
        if order.nodes[number].verb not in (Verb.EMBEDDING, Verb.GATHER, Verb.DISPATCH, Verb.COMBINE)
    ]  # fmt: skip
    sums = []
    for nodes in (together, (*apart, *weights)):
        monkeypatch.setattr(type(one.plan), "nodes", lambda *_, nodes=nodes: tuple(nodes))
        found = lower(one.plan, one.batches[:1])
        sums.append(float(found.graph.lane_seconds.sum()))
    assert sums[1] == pytest.approx(sums[0], rel=1e-9)


def test_a_verb_that_has_no_such_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    one = built(*TRAIN)
    monkeypatch.setattr(type(one.plan), "nodes", lambda *_: (Node(Verb.HOST, -1, WHOLE, way=Way.BACKWARD),))
    with pytest.raises(BadInput, match="schedule sequential: host has no backward node"):
        lower(one.plan, one.batches)
