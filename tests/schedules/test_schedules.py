"""Schedules: every verb once, in an order that the data flow allows, and overlap where it is meant to be."""

from __future__ import annotations

from collections import Counter

import pytest

from moesim.errors import BadInput
from moesim.schedules import WHOLE, Node, Part, Verb, Way, find_schedule, registry
from tests.schedules.by_hand import TICKS, compute, last

MOE = (False, True, True)


def followed(nodes: tuple[Node, ...], number: int) -> set[int]:
    """All nodes that one follows, directly or not."""
    found, todo = set(), [*nodes[number].after]
    while todo:
        earlier = todo.pop()
        if earlier not in found:
            found.add(earlier)
            todo += nodes[earlier].after
    return found


@pytest.mark.parametrize("name", registry)
@pytest.mark.parametrize("beside", [True, False])
def test_every_verb_is_done_once_to_every_token_of_a_layer(name: str, beside: bool) -> None:
    nodes = find_schedule(name)(shared_beside=beside).step(MOE)
    shares: Counter[tuple[Verb, int]] = Counter()
    for node in nodes:
        shares[node.verb, node.layer] += 840 // node.part.of
    expert_layer = {Verb.ROUTER, Verb.GATHER, Verb.DISPATCH, Verb.SHARED, Verb.EXPERTS, Verb.COMBINE}
    for layer, routed in enumerate(MOE):
        found = {verb for verb, one in shares if one == layer}
        assert found - {Verb.ATTENTION, Verb.ATTENTION_PREPARE, Verb.ATTENTION_CORE} == (
            expert_layer if routed else {Verb.MLP}
        )
    assert set(shares.values()) == {840} and len(set(nodes)) == len(nodes)


@pytest.mark.parametrize("name", registry)
def test_experts_follow_their_dispatch_and_the_next_layer_all_of_the_one_before(name: str) -> None:
    nodes = find_schedule(name)().step(MOE)
    where = {(node.verb, node.layer, node.part): number for number, node in enumerate(nodes)}
    for (verb, layer, part), number in where.items():
        before = followed(nodes, number)
        if verb == Verb.COMBINE:
            assert where[Verb.EXPERTS, layer, part] in before and where[Verb.DISPATCH, layer, part] in before
        if verb == Verb.HEAD:
            mine = {one for (_, _, other), one in where.items() if other.overlaps(part) and one != number}
            assert mine - before <= {one for one in mine if nodes[one].verb == Verb.HEAD}


@pytest.mark.parametrize("name", registry)
@pytest.mark.parametrize("replay", [True, False])
def test_the_backward_pass_is_the_forward_pass_turned_round(name: str, replay: bool) -> None:
    nodes = find_schedule(name)().step(MOE, 2, training=True, replay=replay)
    forward = Counter((n.verb, n.layer, n.part, n.micro_batch) for n in nodes[1:] if n.way == Way.FORWARD)
    assert forward == Counter((n.verb, n.layer, n.part, n.micro_batch) for n in nodes if n.way == Way.BACKWARD)
    again = Counter((n.verb, n.layer, n.part, n.micro_batch) for n in nodes if n.way == Way.REPLAY)
    stretch = {Verb.GATHER, Verb.DISPATCH, Verb.SHARED, Verb.EXPERTS, Verb.COMBINE}
    assert again == (Counter(one for one in forward if one[0] in stretch) if replay else Counter())
    assert all(earlier < number for number, node in enumerate(nodes) for earlier in node.after)


def test_sequential_adds_up() -> None:
    nodes = find_schedule("sequential")().step(MOE)
    assert compute(nodes)[:5] == ["attention 0 a", "mlp 0 a", "attention 1 a", "shared 1 a", "experts 1 a"]
    assert last(nodes) == (4 + 5) + 2 * (4 + 3 + 4 + 3)  # the shared expert is hidden by the dispatch
    assert last(find_schedule("sequential")(shared_beside=False).step(MOE)) == last(nodes) + 2 * 1


def test_two_batch_puts_attention_of_one_half_between_dispatch_and_experts_of_the_other() -> None:
    nodes = find_schedule("two_batch")().step((True,))
    assert compute(nodes) == [
        "attention 0 a", "attention 0 b", "shared 0 a", "experts 0 a", "shared 0 b", "experts 0 b",
    ]  # fmt: skip
    ticks = {**TICKS, Verb.DISPATCH: 4, Verb.SHARED: 0, Verb.COMBINE: 4}
    # a attends until 2, b until 4 while a is sent; a's experts until 6 while b is sent; b's until 8; back until 10
    assert last(nodes, ticks) == 10
    assert last(find_schedule("sequential")().step((True,)), ticks) == 4 + 4 + 4 + 4


def test_three_batch_computes_two_thirds_while_one_is_sent() -> None:
    ticks = {**TICKS, Verb.ATTENTION: 6, Verb.DISPATCH: 6, Verb.SHARED: 0, Verb.EXPERTS: 6, Verb.COMBINE: 6}
    # attention until 2, 4, 6; sent until 4, 6, 8; experts 6-8, 8-10, 10-12; back until 10, 12, 14
    assert last(find_schedule("three_batch")().step((True,)), ticks) == 14
    assert last(find_schedule("two_batch")().step((True,)), ticks) == 15  # 3, 6; 6, 9; 6-9, 9-12; 12, 15
    assert last(find_schedule("sequential")().step((True,)), ticks) == 24


def test_five_stages_run_one_half_two_stages_behind_the_other() -> None:
    nodes = find_schedule("five_stage")().step((True, True))
    assert compute(nodes)[:12] == [
        "attention_prepare 0 a", "attention_core 0 a", "shared 0 a", "attention_prepare 0 b", "experts 0 a",
        "attention_core 0 b", "shared 0 b", "attention_prepare 1 a", "experts 0 b", "attention_core 1 a", "shared 1 a",
        "attention_prepare 1 b",
    ]  # fmt: skip
    ticks = {
        **TICKS, Verb.ATTENTION_PREPARE: 2, Verb.ATTENTION_CORE: 4, Verb.ATTENTION: 6, Verb.DISPATCH: 4, Verb.SHARED: 2,
        Verb.EXPERTS: 4, Verb.COMBINE: 4,
    }  # fmt: skip
    # a: prepare 1, core 3, sent 3-5, experts 5-7, back 7-9; b: prepare 4-5, core 7-9, sent 9-11, experts 11-13, back 15
    # a: prepare 10-11, core 13-15, sent 15-17, experts 17-19, back 21; b: 16-17, 19-21, sent 21-23, 23-25, back 27
    assert last(nodes, ticks) == 27
    assert last(find_schedule("sequential")().step((True, True)), ticks) == 2 * (6 + 4 + 4 + 4)


@pytest.mark.parametrize(("degree", "end"), [(1, 16), (2, 12), (4, 12)])
def test_tutel_hides_transfers_behind_the_experts_alone(degree: int, end: int) -> None:
    ticks = {**TICKS, Verb.DISPATCH: 4, Verb.SHARED: 0, Verb.COMBINE: 4}
    # degree 2: attention until 4, sent until 6 and 8, experts 6-8 and 8-10, back until 10 and 12
    # degree 4: all are sent at 8, so what the experts have had since 6 goes back from 8 to 12
    nodes = find_schedule("tutel")(degree=degree).step((True,))
    assert last(nodes, ticks) == end
    assert {node.part.of for node in nodes if node.verb == Verb.ATTENTION} == {1}
    assert {node.part.of for node in nodes if node.verb == Verb.EXPERTS} == {degree}


def test_a_schedule_without_a_degree_refuses_one() -> None:
    with pytest.raises(BadInput, match="two_batch has no degree"):
        find_schedule("two_batch")(degree=4)


def test_scmoe_runs_experts_behind_the_attention_of_the_next_layer() -> None:
    nodes = find_schedule("scmoe")().step((True, True, True))
    assert compute(nodes) == [
        "attention 0 a", "shared 0 a", "attention 1 a", "experts 0 a", "shared 1 a", "attention 2 a", "experts 1 a",
        "shared 2 a", "experts 2 a",
    ]  # fmt: skip
    ticks = {**TICKS, Verb.SHARED: 2}
    # attention 0-4, sent 4-7, shared 4-6 | attention 6-10, sent 10-13, experts 10-14, back 14-17, shared 14-16 |
    # attention 17-21, sent 21-24, experts 21-25, back 25-28, shared 25-27 | experts 27-31, back 31-34
    assert last(nodes, ticks) == 34
    assert last(find_schedule("sequential")().step((True, True, True)), ticks) == 3 * (4 + 3 + 4 + 3)
    where = {(node.verb, node.layer): number for number, node in enumerate(nodes)}
    assert where[Verb.COMBINE, 0] in followed(nodes, where[Verb.ATTENTION, 2])
    assert where[Verb.COMBINE, 0] not in followed(nodes, where[Verb.ATTENTION, 1])


def test_only_what_runs_beside_transfers_leaves_them_sms() -> None:
    def sharing(name: str) -> set[Verb]:
        return {node.verb for node in find_schedule(name)().step(MOE) if node.shares_sms}

    assert sharing("sequential") == set()
    assert {Verb.ATTENTION, Verb.EXPERTS, Verb.MLP} < sharing("two_batch") and Verb.HEAD not in sharing("two_batch")


def test_parts_overlap_where_they_have_tokens_in_common() -> None:
    assert Part(0, 2).overlaps(WHOLE) and Part(0, 2).overlaps(Part(1, 4)) and not Part(0, 2).overlaps(Part(2, 4))


def test_an_unknown_schedule_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="did you mean 'two_batch'"):
        find_schedule("two_bach")
