"""A router as the source of a simulation: pure lookups where a token decides, the whole batch where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.routing import NO_EXPERT, Replay, Routed, RoutingShape, RoutingTrace
from moesim.routing.routers import build_router, registry
from moesim.routing.sources import Places
from moesim.routing.sources.columns import LogitKnobs, generated, recorded
from moesim.routing.synth.popularity import base_shares
from moesim.routing.synth.tokens import HOTTEST, capped

MakeShape = Callable[..., RoutingShape]
PLACES = Places(np.arange(8) // 4)


@pytest.fixture
def model(shape: MakeShape) -> RoutingShape:
    return shape("toy", (0, 1, 2), 32, 4)


def routed(name: Any, model: RoutingShape, warm_up: int = 0, **knobs: Any) -> Routed:
    columns = generated(LogitKnobs.model_validate(knobs), model, 3)
    return Routed(build_router(name), str(name), columns, model, 3, PLACES, warm_up)


def batch(tokens: int = 512) -> tuple[Any, Any, Any]:
    number = np.arange(tokens)
    return number // 16, number % 16, (number * 8 // tokens).astype(np.int32)


SELF_CONTAINED = sorted(
    name
    for name in registry
    if not build_router(name).facts.batch_dependent and "recorded" not in build_router(name).facts.needs
)


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_stepping_and_batching_agree_where_the_batch_does_not_decide(name: str, model: RoutingShape) -> None:
    source = routed(name, model)
    whole = source.assignment(1, *batch())
    some = np.flatnonzero(np.isin(batch()[0], (3, 17)))  # all tokens of two requests
    alone = source.assignment(1, *(column[some] for column in batch()))
    if whole.unit == "slot":
        assert len(whole.token) / 32 == len(alone.token) / 2
        return
    mine = np.isin(whole.token, some)
    for column in ("expert", "weight", "status", "round"):
        assert np.array_equal(getattr(whole, column)[mine], getattr(alone, column)), column
    assert np.array_equal(whole.rank[some], alone.rank)


@pytest.mark.parametrize("name", sorted(set(registry) - set(SELF_CONTAINED) - {"replay_mask_r3"}))
def test_who_shares_the_batch_may_matter_where_the_facts_say_so(name: str, model: RoutingShape) -> None:
    source = routed(name, model, popularity={"lognormal": 1.2})
    request, position, rank = batch()
    one = source.assignment(1, request, position, rank)
    other = source.assignment(1, np.where(request < 30, request + 1000, request), position, rank)
    rows = [[getattr(a, c)[a.token >= 480].tolist() for c in ("expert", "status")] for a in (one, other)]
    assert rows[0] != rows[1]


def test_rows_of_rounds_slots_and_moved_tokens(model: RoutingShape) -> None:
    request, position, rank = batch()
    plain = routed("topk_softmax", model).rows(1, request, position, rank)
    assert plain.experts.shape == (512, 4) and np.array_equal(plain.token_rank, rank)
    twice = routed("iterated_coe", model).rows(1, request, position, rank)
    assert (
        twice.experts.shape == (1024, 2)
        and twice.rounds == 2
        and np.array_equal(twice.token_request, np.tile(request, 2))
    )
    slots = routed("soft_moe", model).rows(1, request, position, rank)
    assert len(slots.experts) == 32 * 32 and set(np.bincount(slots.experts[:, 0])) == {32}
    moved = routed({"name": "speculative_shuffle", "accuracy": 1.0}, model).rows(1, request, position, rank)
    assert np.array_equal(np.sort(moved.experts, axis=1), np.sort(plain.experts, axis=1))
    assert (moved.token_rank != rank).any()


def test_dropped_and_null_rows_send_nothing(model: RoutingShape) -> None:
    source = routed({"name": "null_adamoe", "null": 32, "logit": {"mean": 99.0}}, model)
    assert (source.rows(0, *batch()).experts == NO_EXPERT).all() and source.tally.counted == 0
    limited = routed({"name": "switch_top1", "cf": 0.25}, model)
    rows = limited.rows(0, *batch())
    assert (rows.experts == NO_EXPERT).sum() == limited.tally.dropped > 0


@pytest.mark.parametrize("lognormal", [0.3, 0.8])
def test_plain_top_k_of_generated_logits_loads_experts_by_their_popularity(lognormal: float, shape: MakeShape) -> None:
    model = shape("wide", (0,), 128, 8)
    knobs = LogitKnobs.model_validate({"popularity": {"lognormal": lognormal}})
    columns = generated(knobs, model, 0)
    source = Routed(build_router("topk_softmax"), "", columns, model, 0, PLACES, 0)
    load = np.bincount(source.experts(0, np.arange(20_000), np.zeros(20_000, dtype=np.int64)).ravel(), minlength=128)
    chance = capped(base_shares(knobs.popularity, 1, 128, 0)[0], 8, HOTTEST)
    assert np.abs(load / 20_000 / chance - 1).mean() < 0.06
    assert np.log(load).std() == pytest.approx(np.log(chance).std(), rel=0.12)


def test_domains_and_token_ids_shape_generated_logits(model: RoutingShape) -> None:
    columns = generated(LogitKnobs(domains=4, domain_strength=1.0, token_dependence=1.0, vocabulary=20), model, 1)
    request, position = np.arange(400), np.zeros(400, dtype=np.int64)
    logits, ids, domain = (columns.lookups[n](1, request, position) for n in ("logits", "token_id", "domain"))
    same = (ids[:, None] == ids) & (domain[:, None] == domain)
    first = logits.argmax(axis=1)
    assert (first[:, None] == first)[same].all() and not (first == first[0]).all()


def test_warm_up_teaches_a_router_that_learns(model: RoutingShape) -> None:
    loads = []
    for steps in (0, 30):
        source = routed({"name": "bias_lossfree", "u": 0.01}, model, steps, popularity={"lognormal": 1.0})
        loads.append(source.assignment(0, *batch(4096)).max_vio)
        assert any("learned nothing" in note for note in source.notes) == (steps == 0)
    assert loads[1] < loads[0] / 3


def test_a_recorded_trace_is_a_router_and_gives_the_recorded_rows(trace: RoutingTrace, toy: RoutingShape) -> None:
    source = Routed(build_router("replay_mask_r3"), "", recorded(trace, 5), toy, 5, PLACES, 0)
    request, position, rank = batch()
    assert np.array_equal(
        source.rows(2, request, position, rank).experts, Replay(trace, toy, 5).experts(2, request, position)
    )
    assert source.assignment(2, request, position, rank).weight[:4].sum() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("name", "column"), [("topk_softmax", "logits"), ("hash", "token_id"), ("rectify_fill_in", "logits")]
)
def test_what_a_trace_lacks_is_refused_by_name(name: str, column: str, trace: RoutingTrace, toy: RoutingShape) -> None:
    with pytest.raises(BadInput, match=f"routing.router {name}: the router needs {column}"):
        Routed(build_router(name), name, recorded(trace, 0), toy, 0, PLACES, 0)


def test_recorded_logits_and_ids_feed_routers(trace: RoutingTrace, toy: RoutingShape) -> None:
    logits = np.random.default_rng(0).normal(size=(600, 3, 16)).astype(np.float16)
    full = replace(trace, logits=logits, token_id=np.arange(600, dtype=np.int32) % 7)
    for name in ("topk_softmax", "hash", "batch_priority", "scope_static"):
        source = Routed(build_router(name), name, recorded(full, 0), toy, 0, PLACES, 0)
        experts = source.rows(1, *batch()).experts
        assert experts[experts != NO_EXPERT].max() < 16
    kept = Routed(
        build_router({"name": "batch_priority", "order": "token", "inner": "replay_mask_r3"}),
        "", recorded(trace, 0), toy, 0, PLACES, 0,
    )  # fmt: skip
    assert 0 < kept.assignment(0, *batch()).drop_rate < 0.5


def test_a_rank_outside_the_group_is_refused(model: RoutingShape) -> None:
    with pytest.raises(BadInput, match="rank 9 of a group of 8"):
        routed("topk_softmax", model).rows(0, np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([9], np.int32))
