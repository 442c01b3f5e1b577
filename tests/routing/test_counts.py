"""Counts of stretches equal counting token by token, and a transplanted token is carried over once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from moesim.routing import Replay, RoutingShape, RoutingTrace, Transplant
from moesim.routing.counts import Counts, block_of
from moesim.routing.sources import transplant
from moesim.routing.sources.replay import Recording

Int64s = npt.NDArray[np.int64]
MakeTrace = Callable[..., RoutingTrace]


def by_hand(source: Replay, request: Int64s, first: Int64s, tokens: Int64s, group: Int64s) -> npt.NDArray[np.int64]:
    """[groups, layers, experts] from one lookup per token and layer."""
    found = np.zeros((int(group.max()) + 1, source.moe_layers, source.num_experts), dtype=np.int64)
    for row in range(len(request)):
        position = first[row] + np.arange(tokens[row])
        for layer in range(source.moe_layers):
            experts = source.experts(layer, np.full(tokens[row], request[row]), position)
            found[group[row], layer] += np.bincount(experts[experts < 16], minlength=source.num_experts)
    return found


@pytest.mark.parametrize("longest", [1, 32, 33, 1000])
def test_stretches_are_counted_as_their_tokens_are(make: MakeTrace, toy: RoutingShape, longest: int) -> None:
    source, draw = Replay(long_requests(make), toy, 0), np.random.default_rng(longest)
    request, first, group = draw.integers(0, 50, 30), draw.integers(0, 700, 30), draw.integers(0, 3, 30)
    tokens = draw.integers(0 if longest > 1 else 1, longest + 1, 30)
    group[:3] = range(3)
    counts = Counts(source.recording, 16)
    found = counts.stretches(source.recording.requests(request), first, tokens, group, 3)
    assert np.array_equal(found, by_hand(source, request, first, tokens, group))


def test_the_counts_of_parts_of_a_stretch_add_up(make: MakeTrace) -> None:
    counts = Counts(Recording(long_requests(make), 0), 16)
    one = np.zeros(1, np.int64)
    whole = counts.stretches(one, one, np.array([900]), one, 1)
    cuts = np.array([0, 17, 64, 300, 301, 900])
    parts = counts.stretches(np.zeros(5, np.int64), cuts[:-1], np.diff(cuts), np.zeros(5, np.int64), 1)
    assert np.array_equal(whole, parts)


def test_more_tokens_of_one_kind_than_16_bits_count(make: MakeTrace) -> None:
    counts, rows = Counts(Recording(long_requests(make), 0), 16), 70_000
    same, owner = np.zeros(rows, np.int64), np.repeat(np.arange(4, dtype=np.int32), 4)[None].repeat(counts.layers, 0)
    load, pairs = counts.load_and_pairs(same, same, np.ones(rows, np.int64), same, 1, owner, 4)
    one = np.zeros(1, np.int64)
    once, _ = counts.load_and_pairs(one, one, one + 1, one, 1, owner, 4)
    assert once.max() == 1
    assert np.array_equal(load, rows * once)
    assert np.array_equal(pairs.sum(axis=(1, 2)), load.sum(axis=1))


def test_sums_take_no_more_memory_than_the_tokens_they_stand_for() -> None:
    assert block_of(256, 8) * 8 * 2 >= 256 * 4 and block_of(128, 8) == 32 and block_of(8, 2) == 32


def test_a_transplant_is_its_trace_replayed(trace: RoutingTrace, shape: Callable[..., RoutingShape]) -> None:
    qwen = shape("qwen", tuple(range(5)), 128, 8)
    request, position = np.arange(70) % 9, np.arange(70) * 7
    lazy, carried = Transplant(trace, qwen, 3), Replay(transplant(trace, qwen, 3), qwen, 3)
    for layer in (4, 0, 2):
        assert np.array_equal(lazy.experts(layer, request, position), carried.experts(layer, request, position))


def test_a_recorded_token_is_carried_over_the_same_for_whoever_replays_it(
    trace: RoutingTrace, shape: Callable[..., RoutingShape]
) -> None:
    source = Transplant(trace, shape("qwen", tuple(range(5)), 128, 8), 0)
    same = [r for r in range(400) if source.recording.requests(np.array([r]))[0] == 5][:2]
    one, other = (source.experts(1, np.full(25, request), np.arange(25)) for request in same)
    assert len(same) == 2 and np.array_equal(one, other)


def long_requests(make: MakeTrace) -> RoutingTrace:
    """Four requests of 40 to 400 tokens of top-4 of 16, a tenth of whose choices are none."""
    trace, lengths = make(800), np.array([40, 64, 296, 400])
    none = np.random.default_rng(3).random(trace.expert.shape) < 0.1
    request = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return replace(
        trace,
        expert=np.where(none, np.uint16(65535), trace.expert),
        request=request,
        position=(np.arange(len(request)) - before).astype(np.int32),
    )
