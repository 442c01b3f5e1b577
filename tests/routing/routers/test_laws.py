"""Laws of assignments, for any logits, ranks and capacity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from moesim.routing.routers import Assignment, RouterInput, Status, build_router, registry
from moesim.routing.routers.capacity import places

from .conftest import by_hand

EXPERTS, RANKS = 16, 4
EVERYTHING = sorted(set(registry) - {"pool_rexmoe"})  # there a token may meet expert j of two layers
TOKEN_CHOICE = (
    "topk_softmax", "noisy_topk", "cosine_xmoe", "group_limited_topk", "prototypes_k_top1", "bias_lossfree", "sam",
    "pregated_readme", "conditioned_topk", "scope_static", "replay_mask_r3", "shared_omni", "prior_dirichlet",
)  # fmt: skip


def tokens(seed: int, number: int = 48, skew: float = 1.0) -> RouterInput:
    """Random logits in three layers, requests of 8 tokens, tokens spread over four GPUs of two nodes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, number, EXPERTS)) + skew * rng.normal(size=EXPERTS)
    count = np.arange(number)
    columns: dict[str, Any] = {
        "token_id": rng.integers(0, 40, number),
        "domain": count // 8 % 3,
        "importance": rng.random(number).astype(np.float32) + 0.01,
        "recorded": np.argsort(rng.random((number, EXPERTS)), axis=1)[:, :4].astype(np.uint16),
    }
    return by_hand(
        logits, request=count // 8, rank=count * RANKS // number, ranks=RANKS, gpus_per_node=2, columns=columns,
        top_k=4, layer=1, seed=seed,
    )  # fmt: skip


def rows_at(found: Assignment, *status: Status) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64[ranks, ids]: rows of a rank at an expert."""
    mine = np.isin(found.status, status)
    cell = found.rank[found.token[mine]] * 64 + found.expert[mine]
    return np.bincount(cell, minlength=RANKS * 64).reshape(RANKS, 64)


seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("name", EVERYTHING)
@settings(max_examples=8, deadline=None)
@for_all(seed=seeds)
def test_a_token_meets_an_expert_at_most_once_a_round(name: str, seed: int) -> None:
    found = build_router(name).route(tokens(seed))
    real = found.status != Status.DROPPED
    rows = np.stack([found.round, found.token, found.expert])[:, real]
    assert np.unique(rows, axis=1).shape == rows.shape
    assert found.load.sum() == found.moves.sum() and np.isfinite(found.weight).all()
    assert (np.diff(found.token[found.round == 0]) >= 0).all()


@pytest.mark.parametrize("name", TOKEN_CHOICE)
@settings(max_examples=8, deadline=None)
@for_all(seed=seeds)
def test_token_choice_without_drops_has_exactly_k_rows(name: str, seed: int) -> None:
    found = build_router(name).route(tokens(seed))
    assert np.bincount(found.token, minlength=48).tolist() == [4] * 48
    assert found.drop_rate == 0 and found.mean_k == 4


@settings(max_examples=40, deadline=None)
@for_all(seed=seeds, cf=st.floats(0.1, 3), order=st.sampled_from(["score", "class", "token"]), pad=st.booleans())
def test_kept_rows_of_a_rank_at_an_expert_never_exceed_its_places(seed: int, cf: float, order: str, pad: bool) -> None:
    given = tokens(seed)
    first = build_router({"name": "switch_top1", "cf": cf, "pad": pad}).route(given)
    assert rows_at(first, Status.KEPT, Status.PAD).max() <= places(given, cf).max()
    if pad:
        assert (first.load == places(given, cf).sum()).all(), "padding fills every place"
    two = build_router({"name": "gshard_top2", "cf": cf}).route(given)
    assert rows_at(two, Status.KEPT).max() <= 2 * places(given, cf).max()
    four = build_router({"name": "batch_priority", "cf": cf, "order": order, "pad": pad}).route(given)
    assert rows_at(four, Status.KEPT, Status.PAD).max() <= places(given, cf, 4).max()
    if pad:
        assert (four.load == places(given, cf, 4).sum()).all()


@settings(max_examples=30, deadline=None)
@for_all(seed=seeds, cf=st.floats(0.1, 3), more=st.floats(1.0, 3))
def test_routed_is_kept_plus_dropped_and_more_places_never_drop_more(seed: int, cf: float, more: float) -> None:
    given = tokens(seed)
    small, large = (build_router({"name": "switch_top1", "cf": c}).route(given) for c in (cf, cf * more))
    assert small.count(Status.KEPT) + small.count(Status.DROPPED) == 48
    assert large.count(Status.DROPPED) <= small.count(Status.DROPPED)
    assert build_router({"name": "switch_top1", "cf": float(EXPERTS)}).route(given).drop_rate == 0


@settings(max_examples=30, deadline=None)
@for_all(seed=seeds, cf=st.floats(0.3, 2))
def test_rectifying_keeps_bytes_between_gpus_and_lowers_drops_and_padding(seed: int, cf: float) -> None:
    given, inner = tokens(seed, skew=2.0), {"name": "switch_top1", "cf": cf}
    plain = build_router(inner).route(given)
    near = build_router({"name": "rectify_intra_gpu", "inner": inner}).route(given)
    filled = build_router({"name": "rectify_fill_in", "inner": inner, "cf": cf}).route(given)

    def between(found: Assignment) -> int:
        away = given.expert_rank[found.expert] != found.rank[found.token]
        return int((found.moves & away).sum())

    assert between(near) == between(plain) and near.count(Status.DROPPED) <= plain.count(Status.DROPPED)
    moved = near.status == Status.RECTIFIED
    assert (given.expert_rank[near.expert[moved]] == near.rank[near.token[moved]]).all()
    assert rows_at(filled, Status.KEPT, Status.FILLED).max() <= places(given, cf).max()
    assert filled.count(Status.KEPT) == plain.count(Status.KEPT) and filled.load.sum() >= plain.load.sum()


@pytest.mark.parametrize(
    "name", ["topk_softmax", "switch_top1", "expert_choice", "top_p", "threshold", "rectify_fill_in"]
)
@settings(max_examples=8, deadline=None)
@for_all(seed=seeds)
def test_renaming_experts_renames_them_in_the_assignment(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, rename = rng.normal(size=(40, EXPERTS)), rng.permutation(EXPERTS)
    renamed = np.empty_like(logits)
    renamed[:, rename] = logits
    one, other = (build_router(name).route(by_hand(table, top_k=4)) for table in (logits, renamed))
    rows = [
        sorted(zip(a.token, e, a.status, strict=True)) for a, e in ((one, rename[one.expert]), (other, other.expert))
    ]
    assert rows[0] == rows[1]


@settings(max_examples=20, deadline=None)
@for_all(seed=seeds)
def test_a_bias_moves_the_selection_and_never_the_weights(seed: int) -> None:
    given, bias = tokens(seed), np.random.default_rng(seed).normal(size=EXPERTS)
    found = build_router("bias_lossfree").route(replace(given, state=bias))
    scores = 1 / (1 + np.exp(-given.logits[found.token, found.expert].astype(np.float64)))
    total = np.bincount(found.token, scores)
    assert found.weight == pytest.approx(scores / total[found.token], rel=1e-4)
    biased = 1 / (1 + np.exp(-given.logits)) + bias
    least = np.array([biased[t, found.experts_of(t)].min() for t in range(48)])
    assert least == pytest.approx(np.sort(biased, axis=1)[:, -4], abs=1e-6), "the four highest, equal ones by lot"
