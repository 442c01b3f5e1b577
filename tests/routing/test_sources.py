"""Routing is a lookup: by request and position, whatever the order and the batch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.routing import NO_EXPERT, Balanced, Replay, RoutingShape, RoutingSource, RoutingTrace, Sampled, Transplant
from moesim.routing.sources import transplant
from moesim.routing.sources.in_places import InPlaces, Limit
from moesim.routing.synth.shares import contiguous_imbalance
from moesim.routing.synth.statistics import load_statistics

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
MakeShape = Callable[..., RoutingShape]


@pytest.fixture
def qwen(shape: MakeShape) -> RoutingShape:
    return shape("qwen", tuple(range(5)), 128, 8)


@pytest.fixture
def sources(trace: RoutingTrace, toy: RoutingShape, qwen: RoutingShape, shape: MakeShape) -> list[RoutingSource]:
    grouped = shape("small", (0, 1), 32, 4, 8, 4)
    return [
        Replay(trace, toy, 3),
        Transplant(trace, qwen, 3),
        Balanced(grouped, 3),
        Sampled("decode_in2000out100", grouped, 3),
    ]


def tokens(number: int = 300) -> tuple[Ints, Ints]:
    rng = np.random.default_rng(5)
    return rng.integers(0, 50, number), rng.integers(0, 100, number)


def test_order_and_batch_do_not_change_a_token(sources: list[RoutingSource]) -> None:
    request, position = tokens()
    shuffled = np.random.default_rng(1).permutation(len(request))
    for source in sources:
        whole = source.experts(1, request, position)
        assert whole.dtype == np.uint16 and whole.shape == (300, source.top_k)
        assert np.array_equal(source.experts(1, request[shuffled], position[shuffled]), whole[shuffled])
        assert np.array_equal(source.experts(1, request[7:8], position[7:8]), whole[7:8])


def test_every_token_gets_distinct_experts_in_range(sources: list[RoutingSource]) -> None:
    for source in sources:
        for layer in range(source.moe_layers):
            found = np.sort(source.experts(layer, *tokens()), axis=1)
            assert found.max() < source.num_experts and (np.diff(found, axis=1) > 0).all()


def test_replay_returns_the_recorded_rows_of_one_request_and_wraps(trace: RoutingTrace, toy: RoutingShape) -> None:
    position = np.arange(60, dtype=np.int64)
    found = Replay(trace, toy, 0).experts(2, np.full(60, 9), position)
    starts = [s for s in range(0, 600, 25) if np.array_equal(trace.expert[s : s + 25, 2], found[:25])]
    assert len(starts) == 1 and np.array_equal(found[25:50], found[:25]) and np.array_equal(found[50:], found[:10])


def test_replay_does_not_care_how_the_rows_of_a_trace_are_ordered(trace: RoutingTrace, toy: RoutingShape) -> None:
    shuffled = trace.take(np.random.default_rng(2).permutation(trace.tokens))
    a, b = Replay(trace, toy, 4), Replay(shuffled, toy, 4)
    assert np.array_equal(a.experts(0, *tokens()), b.experts(0, *tokens()))


def test_another_seed_maps_requests_to_other_recorded_ones(trace: RoutingTrace, toy: RoutingShape) -> None:
    first, second = (Replay(trace, toy, seed).experts(0, *tokens()) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_another_models_trace_is_refused_with_the_way_out(trace: RoutingTrace, qwen: RoutingShape) -> None:
    with pytest.raises(BadInput, match=r"recorded from toy .* Try: transplant: true"):
        Replay(trace, qwen, 0)


def test_a_transplanted_token_stays_in_the_groups_of_its_recorded_experts(
    trace: RoutingTrace, qwen: RoutingShape
) -> None:
    carried = transplant(trace, qwen, 0)
    assert carried.header.basis == "transplanted, assumed" and carried.expert.shape == (600, 5, 8)
    for layer in range(5):
        recorded, found = trace.expert[:, layer % 3], carried.expert[:, layer]
        home = np.full(128, -1)
        for choice in range(8):
            home[found[:, choice]] = recorded[:, choice % 4]
        assert all(np.array_equal(home[found[:, c]], recorded[:, c % 4]) for c in range(8))
        assert all((home == j).sum() <= 8 for j in range(16))


def test_a_transplant_keeps_the_load_of_each_recorded_expert(trace: RoutingTrace, qwen: RoutingShape) -> None:
    carried = transplant(trace, qwen, 0).counts()[0]
    recorded = trace.counts()[0]
    assert sorted(carried.tolist()) != sorted(recorded.tolist())
    assert carried.sum() == 2 * recorded.sum()


def test_transplant_counts_violations_of_the_group_limit(trace: RoutingTrace, shape: MakeShape) -> None:
    target = shape("grouped", (0,), 64, 4, 8, 2)
    carried = transplant(trace, target, 0)
    touched = [len(set((row // 8).tolist())) for row in carried.expert[:, 0]]
    assert carried.header.evidence["group_limit_violations"] == sum(n > 2 for n in touched) > 0
    assert any("not enforced" in note for note in Transplant(trace, target, 0).notes)


@pytest.mark.parametrize("experts, top_k, message", [(24, 4, "no multiple"), (16, 5, "gives only 4 experts")])
def test_what_cannot_be_transplanted_is_refused(
    trace: RoutingTrace, shape: MakeShape, experts: int, top_k: int, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        Transplant(trace, shape("other", (0,), experts, top_k), 0)


def test_balanced_gives_every_expert_the_same_rows(deepseek: RoutingShape) -> None:
    source = Balanced(deepseek)
    prompt = source.experts(3, np.full(4096, 32), np.arange(4096))
    assert set(np.bincount(prompt.ravel())) == {128}
    step = np.bincount(source.experts(3, np.arange(320), np.full(320, 2001)).ravel())
    assert step.min() >= 9 and step.max() <= 11


def test_balanced_and_sampled_keep_the_group_limit(shape: MakeShape) -> None:
    small = shape("small", (3, 4), 256, 8, 8, 4)
    for source in (Balanced(small), Sampled("prefill_in2048", small, 0)):
        group = np.sort(source.experts(1, *tokens()) // 32, axis=1)
        assert (1 + (np.diff(group, axis=1) != 0).sum(axis=1)).max() <= 4


def test_sampled_follows_shares_and_rank_imbalance_of_its_file(deepseek: RoutingShape) -> None:
    source, given = Sampled("decode_in2000out100", deepseek, 0), load_statistics("decode_in2000out100")
    request, position = np.arange(60_000), np.full(60_000, 1)
    loads = [np.bincount(source.experts(n, request, position).ravel(), minlength=256) for n in range(0, 58, 6)]
    shares = np.stack(loads) / (60_000 * 8 / 256)
    wanted = given.quantiles[::6]
    assert np.abs(np.quantile(shares, given.levels, axis=1).T[:, 2:-2] / wanted[:, 2:-2] - 1).mean() < 0.04
    for ranks in (8, 32):
        ratio = contiguous_imbalance(shares, ranks) / given.imbalance[ranks][::6]
        assert abs(ratio.mean() - 1) < 0.04
    assert 2.0 < contiguous_imbalance(shares, 32).mean() < 3.0


def test_unknown_statistics_name_the_known_ones(deepseek: RoutingShape) -> None:
    with pytest.raises(BadInput, match="did you mean 'prefill_in2048'"):
        Sampled("prefill_in2049", deepseek, 0)


def test_earlier_tokens_of_a_sampled_load_lie_on_other_experts(deepseek: RoutingShape) -> None:
    now = Sampled("prefill_in4096", deepseek, seed=0)
    before = now.earlier()
    apart = np.abs(before.shares - now.shares).mean() / 2
    others = [0.1123, 0.1091, 0.06428, 0.0553, 0.05228, 0.1692, 0.1661]  # file_to_file of the other prefill files
    assert apart == pytest.approx(np.mean(others), rel=1e-3)
    assert f"{np.mean(others):.1%} of their load" in now.planned_on
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(
            before.experts(0, np.arange(9), np.arange(9)), now.experts(0, *[np.arange(9)] * 2)
        )


def test_a_load_that_moves_stays_as_skewed(qwen: RoutingShape) -> None:
    """Look by look, the shares of each layer are those that were measured, 10.4 % at other experts: within what one
    hot expert of five layers makes.
    """
    first = Sampled("prefill_in4096", qwen, seed=0)
    looks = [first.later(times).shares for times in range(9)]
    apart = [np.abs(now - before).mean() / 2 for before, now in pairwise(looks)]
    assert all(np.array_equal(np.sort(one, axis=1), np.sort(first.shares, axis=1)) for one in looks)
    assert apart == pytest.approx([np.mean([0.1123, 0.1091, 0.06428, 0.0553, 0.05228, 0.1692, 0.1661])] * 8, rel=0.05)


def test_earlier_tokens_of_a_recording_are_its_first_requests(trace: RoutingTrace, toy: RoutingShape) -> None:
    source = Replay(trace, toy, seed=0)
    before, all_requests = source.earlier(), np.repeat(np.arange(400), 30)
    position = np.tile(np.arange(30), 400)
    first = -(-len(np.unique(trace.request)) // 4)
    rows = before.recording.rows(all_requests, position)
    assert set(trace.request[trace.by_request.order[rows]].tolist()) == set(np.unique(trace.request)[:first].tolist())


def test_rows_take_places_in_order_and_padding_fills_what_is_left(qwen: RoutingShape) -> None:
    """Four ranks of 64 tokens choose 8 of 128 experts: ceil(0.8 x 4) places for a rank's rows at each of them."""
    inner = Sampled("prefill_in4096", qwen, 3)
    rank = np.repeat(np.arange(4, dtype=np.int32), 64)
    asked = (0, rank.astype(np.int64), np.tile(np.arange(64), 4), rank)
    chosen, kept = inner.rows(*asked).experts, InPlaces(inner, Limit(0.8)).rows(*asked).experts
    for one in range(4):
        seen: dict[int, int] = {}
        for token in np.flatnonzero(rank == one):
            for choice, expert in enumerate(chosen[token].tolist()):
                assert (kept[token, choice] == expert) == (seen.get(expert, 0) < 4)
                seen[expert] = seen.get(expert, 0) + 1
    padded = InPlaces(inner, Limit(0.8, pad=True)).rows(*asked)
    sent = padded.experts != NO_EXPERT
    cell = np.broadcast_to(padded.token_rank[:, None], sent.shape)[sent] * 128 + padded.experts[sent]
    assert np.bincount(cell).tolist() == [4] * (4 * 128)
