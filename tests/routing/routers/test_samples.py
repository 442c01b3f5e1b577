"""Routers of samples, slots, depth and whole requests."""

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


def test_patch_topl(build: Build, given: Given, noise: Noise) -> None:
    rows = np.log([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.3, 0.7]])
    found = build("patch_topl", l=1).route(given(rows, request=[0, 0, 0, 1, 1]))
    assert [found.experts_of(t) for t in range(5)] == [[0], [1], [], [1], [0]]
    many = build("patch_topl", l=4).route(given(noise(320, 8), request=np.arange(320) // 32))
    assert many.load.tolist() == [40] * 8


def test_two_step_promoe(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(4000, 8), request=np.arange(4000) // 10, top_k=2)
    found = build("two_step_promoe", u=0.25, fixed=1).route(tokens)
    free = np.array([found.experts_of(t) == [0] for t in range(4000)]).reshape(400, 10)
    assert free.mean() == pytest.approx(0.25, abs=0.08) and (free == free[:, :1]).all()
    others = found.expert[~free.reshape(-1)[found.token]]
    assert 0 not in others and len(others) == 2 * (~free).sum()
    cos = build("two_step_promoe", u=0.0, k=1).route(given([[9, 3, 4, 0]]))
    assert cos.experts_of(0) == [2] and cos.weight == pytest.approx([0.8])


def test_soft_moe(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(64, 4), request=np.arange(64) // 32, rank=np.arange(64) // 32, ranks=2)
    router = build("soft_moe", slots=3)
    found = router.route(tokens)
    assert found.unit == "slot" and found.units == 2 * 4 * 3 and found.load.tolist() == [6] * 4
    assert found.rank.tolist() == [0] * 12 + [1] * 12
    dispatch, combine = router.dense(tokens)  # type: ignore[attr-defined]
    assert dispatch[:32].sum(axis=0) == pytest.approx(np.ones(12)) and combine.sum(axis=1) == pytest.approx(np.ones(64))


def test_smear(build: Build, given: Given) -> None:
    tokens = given([[2, 0, 0, 0], [0, 0, 4, 0], [0, 9, 0, 0]], request=[0, 0, 1], rank=[0, 1, 1], ranks=2)
    router = build("smear")
    found = router.route(tokens)
    assert found.expert.tolist() == [0, 2, 2], "the FFN runs where the token is"
    (sets,) = router.chores(tokens, found).sets
    assert sets.tolist() == [6, 6], "an example on each rank: four sets read, one written, and read again"
    w = np.exp([1, 0, 2, 0])
    assert router.merged(tokens)[0] == pytest.approx(w / w.sum())  # type: ignore[attr-defined]


def test_compete(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(200, 8), top_k=2)
    steps = [build("compete", rate=0.3).route(replace(tokens, step=s)) for s in range(200)]
    contests = [one for one in steps if one.count(Status.PROBE)]
    assert len(contests) / 200 == pytest.approx(0.3, abs=0.1)
    assert contests[0].load.tolist() == [200] * 8 and contests[0].count(Status.KEPT) == 400
    assert contests[0].mean_k == 2


def test_depth_duo_drllm(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(4000, 8), top_k=2)
    found = build("depth_duo_drllm", budget=0.8, more=0.1).route(tokens)
    assert found.mean_k == pytest.approx(2 * 0.8, rel=0.03)
    runs = np.bincount(found.token[found.moves], minlength=4000) / 2
    assert [np.mean(runs == n) for n in (0, 1, 2)] == pytest.approx([0.3, 0.6, 0.1], abs=0.03)
    duo = build("depth_duo_drllm", kind="duo", budget=0.7, more=0.1, small=0.5).route(tokens)
    rows = np.bincount(duo.token[duo.moves], minlength=4000)
    assert [np.mean(rows == n) for n in (0, 1, 2)] == pytest.approx([0.1, 0.4, 0.5], abs=0.03)


def test_fleet_policy(build: Build, given: Given, noise: Noise) -> None:
    rows = np.array([[0.0, 0.5, 2.0], [9, 9, 9], [1.0, 0.0, 3.0], [9, 9, 9]])
    tokens = given(rows, request=[0, 0, 1, 1])
    quality, cost = 1 / (1 + np.exp(-rows[[0, 2]])), np.array([0, 0.5, 1])
    for trade in (0.0, 0.35, 2.0):
        best = (quality - trade * cost).argmax(axis=1)
        found = build("fleet_policy", variant="oracle", trade=trade).route(tokens)
        assert found.expert.tolist() == np.repeat(best, 2).tolist()
    tries = build("fleet_policy", variant="cascade", threshold=0.6, noise=0.0).route(tokens)
    assert [tries.experts_of(t) for t in (0, 2)] == [[0, 1], [0]] and tries.count(Status.KEPT) == 4
    assert set(build("fleet_policy", variant="static", model=1).route(tokens).expert) == {1}


@pytest.mark.parametrize("variant", ["score", "knn", "cluster", "class", "linucb", "thompson"])
def test_an_estimating_fleet_policy_beats_a_fixed_model(variant: str, build: Build, given: Given) -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 600)  # three kinds of requests, each best answered by one model
    first = 3.0 * np.eye(3)[kind] + 0.3 * rng.normal(size=(600, 3))
    rows = np.stack([first, rng.normal(size=(600, 3))], axis=1).reshape(1200, 3)  # later tokens do not matter
    tokens = given(rows, request=np.arange(1200) // 2, columns={"domain": np.repeat(kind, 2)}, top_k=1)
    router, state = build("fleet_policy", variant=variant, trade=0.0), None
    for _ in range(3):
        step = replace(tokens, state=state)
        state = router.learn(step, router.route(step))
    chosen = router.route(replace(tokens, state=state)).expert.reshape(600, 2)
    assert (chosen == kind[:, None]).mean() > 0.8
