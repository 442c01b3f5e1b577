"""Schedules: every verb once, in an order that the data flow allows, and overlap where it is meant to be."""

from __future__ import annotations

from collections import Counter

import pytest

from moesim.errors import BadInput
from moesim.schedules import REGISTRY, Verb, layer_schedule


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_verb_of_every_layer_and_part_comes_once_and_in_order(name: str) -> None:
    schedule = layer_schedule(name)
    steps = list(schedule.order(3))
    assert Counter(steps) == Counter(set(steps)) and len(steps) == 3 * len(Verb) * schedule.micro_batches
    for part in range(schedule.micro_batches):
        mine = [(step.layer, step.verb) for step in steps if step.micro_batch == part]
        assert mine == sorted(mine)


def test_two_batch_puts_attention_of_one_half_between_dispatch_and_experts_of_the_other() -> None:
    steps = list(layer_schedule("two_batch").order(1))
    where = {(step.verb, step.micro_batch): place for place, step in enumerate(steps)}
    assert where[Verb.DISPATCH, 0] < where[Verb.ATTENTION, 1] < where[Verb.EXPERTS, 0]
    assert where[Verb.COMBINE, 0] < where[Verb.EXPERTS, 1]


def test_an_unknown_schedule_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="did you mean 'two_batch'"):
        layer_schedule("two_bach")
