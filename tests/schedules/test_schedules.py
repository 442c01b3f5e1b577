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
