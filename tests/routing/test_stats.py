"""Statistics on hand-worked traces, and against plain reference loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import BadInput
from moesim.routing import NO_EXPERT, RoutingTrace, TraceHeader, make_trace
from moesim.routing.loads import loads_of
from moesim.routing.stats import affinity, balance, load, locality
from moesim.routing.stats.diff import diff
from moesim.routing.stats.domains import domain_divergence, jensen_shannon_bits, owners, shuffled_divergence
from moesim.routing.stats.summary import summarise, summarise_loads

Make = Callable[..., RoutingTrace]


def tiny(expert: object, experts: int = 4, **columns: object) -> RoutingTrace:
    ids = np.asarray(expert)
    header = TraceHeader("tiny", ids.shape[1], experts, ids.shape[2], "by hand")
    return make_trace(header, ids, **columns)  # type: ignore[arg-type]


def test_load_measures_of_a_hand_worked_layer() -> None:
    counts = np.array([6, 2, 0, 0])
    assert load.max_over_mean(counts) == 3 and load.max_violation(counts) == 2
    assert load.entropy_bits(counts) == pytest.approx(0.8113, abs=1e-4)
    assert load.gini(counts) == pytest.approx(0.625)
    assert load.variation(counts) == pytest.approx(np.std([6, 2, 0, 0]) / 2)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_load_measures_stay_in_their_ranges(counts: list[int]) -> None:
    experts = len(counts)
    assert 1 - 1e-9 <= load.max_over_mean(counts) <= experts + 1e-9
    assert -1e-9 <= load.gini(counts) <= 1 - 1 / experts + 1e-9
    assert -1e-9 <= load.entropy_bits(counts) <= np.log2(experts) + 1e-9


@given(st.integers(0, 100), st.integers(1, 300), st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_permuting_experts_permutes_counts_and_changes_no_measure(seed: int, tokens: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((tokens, 2, 6)), axis=2)[:, :, :3]
    order = np.roll(np.arange(6), shift)
    plain, moved = tiny(ids, 6), tiny(order[ids], 6)
    assert np.array_equal(moved.counts()[:, order], plain.counts())
    assert load.gini(moved.counts()) == pytest.approx(load.gini(plain.counts()))
    assert affinity.affinity(moved) == pytest.approx(affinity.affinity(plain))
    assert locality.best_performance(moved, 1) == pytest.approx(locality.best_performance(plain, 1))


def test_a_trace_joined_with_itself_counts_twice(trace: RoutingTrace) -> None:
    twice = trace.take(np.tile(np.arange(trace.tokens), 2))
    assert np.array_equal(twice.counts(), 2 * trace.counts())


def test_successors_that_are_certain_give_full_affinity() -> None:
    ids = np.random.default_rng(0).integers(0, 4, 500)
    sure = tiny(np.stack([ids, (ids + 1) % 4], axis=1)[:, :, None])
    assert affinity.likeliest_successor(sure)[0] == 1 and affinity.affinity(sure)[0] > 0.97
    free = tiny(np.stack([ids, np.random.default_rng(1).integers(0, 4, 500)], axis=1)[:, :, None])
    assert abs(affinity.affinity(free)[0]) < 0.02


def test_coactivation_counts_pairs() -> None:
    table = affinity.coactivation(tiny([[[0, 1]], [[0, 2]], [[1, 0]]]), 0)
    assert table[0, 1] == 2 and table[1, 0] == 2 and table[0, 0] == 3 and table[3, 3] == 0


def test_segment_metrics_of_a_hand_worked_segment() -> None:
    same = tiny([[[0, 1]]] * 4)
    assert locality.best_performance(same, 4)[0] == 1 and locality.best_hit_rate(same, 4, 2)[0] == 1
    mixed = tiny([[[0, 1]], [[0, 2]], [[0, 3]], [[0, 1]]])
    # thresholds: {0}: right 4 of 4 predicted, 8 wanted -> 8/12; {0, 1}: 6 of 8 -> 12/16; all: 8 of 16 -> 16/24
    assert locality.best_performance(mixed, 4)[0] == pytest.approx(12 / 16)
    assert locality.best_hit_rate(mixed, 4, 1)[0] == pytest.approx(4 / 8)
    assert locality.best_hit_rate(mixed, 4, 2)[0] == pytest.approx(6 / 8)


def test_a_larger_cache_never_hits_less(trace: RoutingTrace) -> None:
    rates = [locality.best_hit_rate(trace, 8, cache).mean() for cache in range(1, 17)]
    assert rates == sorted(rates) and rates[-1] == 1


def test_sparsity_counts_idle_experts() -> None:
    trace = tiny([[[0, 1]], [[1, 2]], [[1, NO_EXPERT]]])
    assert locality.token_sparsity(trace)[0] == pytest.approx(1 - 5 / 3 / 4)
    assert locality.chunk_sparsity(trace, 3)[0] == pytest.approx(1 / 4)


def test_segments_do_not_cross_requests() -> None:
    trace = tiny([[[0]], [[1]], [[2]], [[3]]], request=[0, 0, 1, 1], position=[0, 1, 0, 1])
    assert locality.segments(trace, 2, 1).tolist() == [[0, 1], [2, 3]]
    assert len(locality.segments(trace, 3)) == 0 and np.isnan(locality.best_performance(trace, 3)).all()


def test_local_activation_rate_counts_choices_at_home() -> None:
    trace = tiny([[[0, 1]], [[2, 0]]], source_rank=[0, 1])
    held = np.array([0, 0, 1, 1])[None, :, None] == np.arange(2)
    assert locality.local_activation_rate(trace, held)[0] == pytest.approx(3 / 4)
    with pytest.raises(BadInput, match="2 source ranks, the placement 1"):
        locality.local_activation_rate(trace, held[:, :, :1])


def test_a_trace_can_be_even_in_total_and_uneven_in_every_step() -> None:
    trace = tiny([[[e]] for e in (0, 0, 1, 1, 2, 2, 3, 3)], step=[0, 0, 1, 1, 2, 2, 3, 3])
    assert load.max_over_mean(trace.counts())[0] == 1 and (balance.step_imbalance(trace) == 4).all()
    assert (balance.step_imbalance(trace, ranks=2) == 2).all() and (balance.churn(trace, 4, 1) == 1).all()


def test_capacity_drops_the_last_in_line() -> None:
    trace = tiny([[[0]], [[0]], [[0]], [[1]]], step=[0, 0, 0, 0])
    assert balance.capacity_drops(trace, 1.0)[:, 0, 0].tolist() == [False, True, True, False]
    assert not balance.capacity_drops(trace, 4.0).any()


def test_a_larger_capacity_never_drops_more(trace: RoutingTrace) -> None:
    dropped = [balance.capacity_drops(trace, factor).sum() for factor in (0.5, 1, 1.5, 2, 4)]
    assert dropped == sorted(dropped, reverse=True) and dropped[0] > 0 and dropped[-1] == 0


def test_capacity_in_position_order_drops_towards_the_end(make: Make) -> None:
    trace = make(tokens=400, layers=2)
    one = replace(trace, request=np.zeros(400, np.int32), position=np.arange(400, dtype=np.int32), step=trace.step * 0)
    expert = np.where(balance.capacity_drops(one, 0.8), NO_EXPERT, one.expert).astype(np.uint16)
    rate = balance.drop_by_position(expert == NO_EXPERT, one.by_request, 4)
    assert (np.diff(rate) > 0).all() and rate[0] < 0.15


def test_divergence_of_equal_and_disjoint_shares() -> None:
    assert jensen_shannon_bits([1, 2, 0], [2, 4, 0]) == pytest.approx(0)
    assert jensen_shannon_bits([1, 0], [0, 5]) == pytest.approx(1)


def test_domains_that_differ_stand_out_from_their_shuffle(make: Make) -> None:
    trace = make(tokens=2000)
    shifted = np.where(trace.domain[:, None, None] == 1, trace.expert // 2 + 8, trace.expert // 2)
    apart = tiny(shifted[:, :, :1], 16, domain=trace.domain * 0, request=trace.request, position=trace.position)
    both = replace(apart, header=replace(apart.header, domains=("a", "b")), domain=trace.domain)
    assert domain_divergence(both)[0, 1] > 0.9 and shuffled_divergence(both)[0, 1] < 0.1


def test_a_trace_does_not_differ_from_itself(trace: RoutingTrace) -> None:
    same = diff(trace, trace)
    assert same.common == 600 and same.fluctuation is not None
    assert not same.fluctuation.any() and not same.divergence_bits.any()
    assert (same.hot_overlap == 1).all() and same.correlation == pytest.approx(1)


def test_fluctuation_counts_the_choices_that_changed(trace: RoutingTrace) -> None:
    expert = trace.expert.copy()
    expert[:, 1, 0] = NO_EXPERT
    changed = diff(trace, replace(trace, expert=expert))
    assert changed.fluctuation is not None
    assert changed.fluctuation.tolist() == [0, 0.25, 0] and changed.total_variation[0] == 0


def test_traces_of_other_shapes_cannot_be_compared(trace: RoutingTrace, make: Make) -> None:
    with pytest.raises(BadInput, match="top-4 of 16 against 3 layers with top-2 of 16"):
        diff(trace, make(top_k=2))


def test_the_summary_of_a_random_trace_is_finite_json(trace: RoutingTrace) -> None:
    found = summarise(trace).to_json()
    assert found["metrics"]["tokens"] == {"value": 600, "unit": "tokens"} and len(found["breakdown"]["gini"]) == 3
    assert found["breakdown"]["affinity_to_next_layer"][-1] is None
    assert summarise(trace.window(0, 1)).scalars["requests"] == 1


def test_a_cache_of_all_experts_holds_every_segment(trace: RoutingTrace) -> None:
    short, long = summarise(trace, 4, 16).scalars, summarise(trace, 8).scalars
    assert short["sch_4_cache_16_mean"] == 1
    assert short["chunk_sparsity_4_mean"] > long["chunk_sparsity_8_mean"], "more tokens leave fewer experts idle"
    with pytest.raises(BadInput, match="a cache of 17 of 16 experts"):
        summarise(trace, 4, 17)


def test_partners_are_experts_that_meet() -> None:
    trace = tiny([[[0, 1]], [[0, 1]], [[2, 3]], [[2, 0]]])
    # 0 meets 1 in two of its three tokens, 1 meets 0 in all of its two, 2 meets 3 and 0 in one of two, 3 meets 2
    assert affinity.likeliest_partner(trace)[0] == pytest.approx((2 / 3 + 1 + 1 / 2 + 1) / 4)


def test_a_capacity_in_token_order_drops_late_positions_and_counts_have_the_load_of_their_trace() -> None:
    trace = tiny([[[0]]] * 8, experts=2, position=np.arange(8), request=np.zeros(8, int), step=np.zeros(8, int))
    found = summarise(trace).to_json()["breakdown"]
    assert found["drop_by_position"] == [0.0] * 8 and found["capacity_1_drop_by_position"] == [0.0] * 4 + [1.0] * 4
    loads = summarise_loads(loads_of(trace)).to_json()["breakdown"]
    assert loads["gini"] == found["gini"] and loads["step_max_over_mean"] == found["step_max_over_mean"]


def test_moved_tokens_and_layers_by_hand() -> None:
    """Of three tokens over two layers one moves in both, one in none though its order changed, one loses an expert."""
    old = tiny([[[0, 1], [2, 3]], [[0, 1], [2, 3]], [[0, 1], [2, 3]]])
    new = tiny([[[0, 2], [1, 3]], [[1, 0], [3, 2]], [[0, NO_EXPERT], [2, 3]]])
    found = diff(old, new).to_json()["metrics"]
    assert found["moved_tokens"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["moved_layers_of_a_token"]["value"] == pytest.approx(3 / 3)
    assert "router_shift_ratio" not in found
    assert diff(old, old).moved == {"moved_tokens": 0, "moved_layers_of_a_token": 0}


def test_the_shift_ratio_is_of_the_scores_of_the_old_experts() -> None:
    """Logits of 0 over four experts, p = 1/4; then 2 and 1 of 5: |log(8/5)| of the one, |log(4/5)| of the other."""
    flat, moved = np.zeros((1, 1, 4)), np.log([[[2.0, 1.0, 1.0, 1.0]]])
    old, new = tiny([[[0, 1]]], logits=flat), tiny([[[0, 1]]], logits=moved)
    by_hand = np.exp(-(np.log(8 / 5) + np.log(5 / 4)) / 2)
    assert diff(old, new).moved["router_shift_ratio"] == pytest.approx(by_hand, rel=1e-3)
    assert diff(old, old).moved["router_shift_ratio"] == 1


def test_a_domain_owns_the_expert_that_it_uses_more_than_others_do() -> None:
    """Both domains use expert 0 most; 1 is only a's (1/3 of its choices), 2 only b's (1/2), 3 nobody's."""
    header = TraceHeader("tiny", 1, 4, 1, "by hand", domains=("a", "b"))
    trace = make_trace(header, np.array([0, 0, 1, 0, 2]).reshape(5, 1, 1), domain=[0, 0, 0, 1, 1])
    owner, lead = owners(trace)
    assert owner[:, 0].tolist() == [1, 2] and lead[:, 0] == pytest.approx([1 / 3, 1 / 2])
    told = summarise(trace).to_json()
    assert told["metrics"]["attribution_mean"]["value"] == pytest.approx(5 / 12, abs=1e-6)
    assert told["breakdown"]["owned_expert.b"] == [2]
