"""Routers that choose for each token by itself: the catalogue's definition, worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.routing.routers import Router, RouterInput, Status

Build = Callable[..., Router]
Given = Callable[..., RouterInput]
Noise = Callable[..., Any]
LN2, LN3 = float(np.log(2)), float(np.log(3))


def test_topk_softmax(build: Build, given: Given) -> None:
    found = build("topk_softmax", k=2).route(given([[0, LN3, LN2, -9]]))
    assert found.experts_of(0) == [1, 2] and found.weight == pytest.approx([0.6, 0.4])
    plain = build("topk_softmax", k=2, norm_topk=False).route(given([[0, LN3, LN2, 0]]))
    assert plain.weight == pytest.approx([3 / 7, 2 / 7])
    assert build("topk_softmax", k=1, score="sigmoid", norm_topk=False).route(given([[0, LN3]])).weight == [0.75]


def test_noisy_topk(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(4000, 4, popularity=0) * 0 + [1.0, 0, 0, 0])
    quiet, loud = (build("noisy_topk", k=1, noise=n).route(tokens).load for n in (0.0, LN2))
    assert quiet.tolist() == [4000, 0, 0, 0]
    rng = np.random.default_rng(1)  # ln 2, softplus(0), is the noise's standard deviation
    draws = (LN2 * rng.normal(size=(200_000, 4)) + [1, 0, 0, 0]).argmax(axis=1)
    assert loud / 4000 == pytest.approx(np.bincount(draws) / 200_000, abs=0.03)


def test_cosine_xmoe(build: Build, given: Given) -> None:
    row = np.array([[3.0, 4.0, 0.0, 0.0]])
    found = build("cosine_xmoe", tau=0.2, k=2).route(given(row))
    scores = np.exp(np.array([3.0, 4.0, 0.0, 0.0]) / 5 / 0.2)
    assert found.experts_of(0) == [1, 0]
    assert found.weight == pytest.approx([scores[1] / scores.sum(), scores[0] / scores.sum()], rel=1e-5)
    assert build("cosine_xmoe", tau=0.2, k=2).route(given(10 * row)).weight == pytest.approx(found.weight)


def test_group_limited_topk(build: Build, given: Given) -> None:
    row = [[5, -9, -9, -9, 2, 2, 1, -9]]  # groups of two: the sum of sigmoids is highest in {4, 5}, then {0, 1}
    limited = build("group_limited_topk", groups=4, topk_groups=1, k=2)
    assert set(limited.route(given(row)).experts_of(0)) == {4, 5}
    by_best = build("group_limited_topk", groups=4, topk_groups=1, k=2, by="max").route(given(row))
    assert by_best.experts_of(0) == [0, 1]
    assert by_best.weight.sum() == pytest.approx(1)


def test_switch_top1(build: Build, given: Given) -> None:
    found = build("switch_top1", cf=1.0).route(given([[2, 0], [3, 0], [4, 0], [0, 1]]))
    assert found.status.tolist() == [Status.KEPT, Status.KEPT, Status.DROPPED, Status.KEPT]
    assert found.weight[0] == pytest.approx(1 / (1 + np.exp(-2)))
    best = build("switch_top1", cf=1.0, order="score").route(given([[2, 0], [3, 0], [4, 0], [0, 1]]))
    assert best.status.tolist() == [Status.DROPPED, Status.KEPT, Status.KEPT, Status.KEPT]


def test_gshard_top2(build: Build, given: Given) -> None:
    always = build("gshard_top2", cf=0.5, random_second=False).route(given([[9, 8, 0], [0, 9, 8], [0, 9, 8]]))
    places = 2 * 1  # ceil(0.5 * 3 / 3) for each of two choices
    assert always.load.tolist() == [1, places, 2]
    assert always.status[1] == Status.DROPPED, "second choices queue behind the first ones of later tokens"
    drawn = build("gshard_top2", cf=None).route(given(np.tile([0.0, -LN2, -99.0], (4000, 1))))
    assert drawn.mean_k == pytest.approx(1 + 2 / 3, abs=0.03), "kept with chance 2 p_e2 = 2 / 3"
    assert drawn.weight[:1] == pytest.approx([2 / 3])


def test_top_p(build: Build, given: Given) -> None:
    rows = np.log([[0.5, 0.3, 0.15, 0.05], [0.25, 0.35, 0.2, 0.2]])
    found = build("top_p", p=0.4).route(given(rows))
    assert [found.experts_of(t) for t in (0, 1)] == [[0], [1, 0]]
    assert found.weight == pytest.approx([0.5, 0.35, 0.25])
    flat = build("top_p", p=0.4).route(given(np.zeros((2000, 8))))
    assert flat.mean_k == 4 and flat.load / 2000 == pytest.approx(0.5, abs=0.05), "of equals, any four"


def test_threshold(build: Build, given: Given) -> None:
    rows = np.log([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.3, 0.2]])
    found = build("threshold", tau=0.28, kmin=1, kmax=2).route(given(rows))
    assert [found.experts_of(t) for t in (0, 1)] == [[0, 1], [2]]
    assert found.weight == pytest.approx([5 / 8, 3 / 8, 1])
    bounded = build("threshold", tau=0.1, kmin=3, kmax=3).route(given(np.log([[0.5, 0.3, 0.15, 0.05]])))
    assert bounded.experts_of(0) == [0, 1, 2]


def test_attention_importance_k(build: Build, given: Given) -> None:
    attended = {"importance": np.array([8, 4, 1, 2], dtype=np.float32)}
    tokens = given(np.tile([4, 3, 2, 1], (4, 1)), request=[0, 0, 0, 1], columns=attended)
    found = build("attention_importance_k", kmin=1, kmax=4).route(tokens)
    assert [len(found.experts_of(t)) for t in range(4)] == [4, 2, 1, 4]
    assert found.weight[4:6] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])


def test_relu_remoe(build: Build, given: Given, noise: Noise) -> None:
    router, tokens = build("relu_remoe", k=1), given([[2, -1, 0.5, -3], [-1, -2, -3, -4]], top_k=1)
    found = router.route(tokens)
    assert found.experts_of(0) == [0, 2] and found.experts_of(1) == [] and found.weight == pytest.approx([2, 0.5])
    many, router = given(noise(2000, 64), top_k=8), build("relu_remoe")
    for _ in range(150):
        many = replace(many, state=router.learn(many, router.route(many)))
    assert 1 - router.route(many).mean_k / 64 == pytest.approx(0.875, abs=0.005), "the target sparsity is held"


def test_null_adamoe(build: Build, given: Given, noise: Noise) -> None:
    found = build("null_adamoe", null=2, k=3, logit={"mean": 50.0}).route(given([[1, 0, 5, 2]]))
    assert found.experts_of(0) == [2] and found.count(Status.NULL) == 2
    assert found.weight[found.moves] == pytest.approx([1.0]) and found.weight[~found.moves].tolist() == [0, 0]
    many = build("null_adamoe", null=32, k=12).route(given(noise(8192, 64), top_k=8))
    assert many.mean_k == pytest.approx(12 * 64 / 96, abs=0.2), "as many of the choices as of the experts are real"
    skewed = build("null_adamoe", null=16, k=5).route(given(noise(8192, 8, popularity=2.0) - 3.0))
    assert skewed.mean_k == pytest.approx(5 / 3, abs=0.03), "wherever the real logits lie, and however they spread"
    low = build("null_adamoe", null=16, k=5, logit={"mean": -50.0, "std": 1.0}).route(given(noise(64, 8)))
    assert low.mean_k == 5


def test_zero_copy_const_moepp(build: Build, given: Given, noise: Noise) -> None:
    never = np.full((2, 40, 4), -99.0)
    settings = {"zero": 1, "copy": 1, "constant": 2, "tau": 0.5, "gamma": 1.0, "residual": 1.0}
    router = build("zero_copy_const_moepp", **settings, logit={"mean": 0.0, "std": 1.0})
    free = router.route(given(never))
    assert free.count(Status.KEPT) == 0 and free.count(Status.NULL) > 0 and free.table()[0].min() == 65535
    always = np.tile([99.0, 98.0, 0, 0], (40, 1))
    found = router.route(given(always))
    places = 0.5 * 40 * 2 / (0.5 * 4 + 4)  # gamma tau T k / (tau E + Z)
    assert found.load.tolist() == [np.ceil(places), np.ceil(places), 0, 0]
    second = given(np.stack([np.tile([0, 0, 300.0, 200.0], (40, 1)), always]), layer=1)
    assert set(router.route(second).expert) == {2, 3}, "the layer before counts through the gating residual"
    for tau in (0.1, 0.5, 1.0):
        plain = build("zero_copy_const_moepp", tau=tau, gamma=None, residual=0.0).route(given(noise(8192, 8) - 2))
        assert plain.mean_k / 2 == pytest.approx(tau * 8 / (tau * 8 + 4), abs=0.04), "tau E / (tau E + Z) are FFN rows"


def test_entropy_tsallis_dynmole(build: Build, given: Given) -> None:
    rows = np.log([[0.7, 0.2, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25]])
    found = build("entropy_tsallis_dynmole", q=2.0, h=0.7, p=0.75, kmin=2).route(given(rows))
    # S_2 = 1 - sum p^2: 0.465 and 0.75
    assert found.experts_of(0) == [0, 1] and len(found.experts_of(1)) == 4
    assert found.weight[:2] == pytest.approx([7 / 9, 2 / 9])


def test_gw_broadcast(build: Build, given: Given) -> None:
    rows = np.log([[0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])
    found = build("gw_broadcast", h=1.0, inner={"name": "topk_softmax", "k": 1}).route(given(rows))
    assert found.experts_of(0) == [0] and sorted(found.experts_of(1)) == [0, 1, 2, 3]
    assert found.weight[-4:] == pytest.approx([0.25] * 4)
