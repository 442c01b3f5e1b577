"""Routers that assign a whole batch, follow ids, or learn to balance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from moesim.routing.routers import Router, RouterInput, Status

Build = Callable[..., Router]
Given = Callable[..., RouterInput]
Noise = Callable[..., Any]


def test_expert_choice(build: Build, given: Given, noise: Noise) -> None:
    rows = np.log([[0.8, 0.2], [0.7, 0.3], [0.9, 0.1], [0.6, 0.4]])
    found = build("expert_choice", c=1.0).route(given(rows))
    assert [found.experts_of(t) for t in range(4)] == [[0], [1], [0], [1]]
    assert found.weight == pytest.approx([0.8, 0.3, 0.9, 0.4])
    assert build("expert_choice").route(given(noise(512, 16), top_k=4)).max_vio == 0
    one = build("expert_choice", c=2.0, max_per_token=1).route(given(rows))
    assert one.count(Status.DROPPED) == 4 and one.mean_k == 1


def test_sinkhorn_base(build: Build, given: Given, noise: Noise) -> None:
    rows = np.array([[3, 1, 0], [3, 2, 0], [3, 0, 1]], dtype=np.float32)
    exact = build("sinkhorn_base", method="exact").route(given(rows))
    best = max(product(range(3), repeat=3), key=lambda e: rows[range(3), e].sum() if len(set(e)) == 3 else -1)
    assert exact.expert.tolist() == list(best)
    skewed = given(noise(4096, 16, popularity=2.0))
    assert build("sinkhorn_base", iters=50).route(skewed).max_vio < 0.1
    assert exact.weight[0] == pytest.approx(1 / (1 + np.exp(-rows[0, best[0]])))


def test_hash(build: Build, given: Given) -> None:
    ids = {"token_id": [7, 8, 7, 9, 7]}
    found = build("hash").route(given(np.eye(5, 16), columns=ids))
    assert found.expert[0] == found.expert[2] == found.expert[4] and found.weight.tolist() == [1] * 5
    even = build("hash", table="balanced", vocabulary=1000).route(given(np.zeros((4000, 8)), columns={
        "token_id": np.random.default_rng(0).choice(1000, 4000, p=(w := 1 / np.arange(1, 1001)) / w.sum())
    }))  # fmt: skip
    assert even.max_vio < 0.15


def test_random_thor(build: Build, given: Given) -> None:
    tokens = given(np.tile([9.0, 0, 0, 0], (4000, 1)), request=np.arange(4000) // 100)
    found = build("random_thor", copies=2).route(tokens)
    assert found.load == pytest.approx([2000] * 4, rel=0.1)
    assert all(len(set(found.experts_of(t))) == 2 for t in range(100))
    whole = build("random_thor", scope="request").route(tokens)
    assert all(len(set(whole.expert[r * 100 : r * 100 + 100])) == 1 for r in range(40)) and len(set(whole.expert)) == 4


def test_frozen_map(build: Build, given: Given) -> None:
    router = build("frozen_map", freeze_step=1)
    first = given([[1, 0, 0], [0, 1, 0], [0, 0, 1]], columns={"token_id": [4, 5, 4]})
    state = router.learn(first, router.route(first))
    later = given([[0, 9, 0], [0, 0, 9], [9, 0, 0]], columns={"token_id": [4, 5, 6]}, state=state, step=1)
    assert router.route(later).expert.tolist() == [2, 1, 0], "ids 4 and 5 keep their experts, 6 follows its logits"


def test_vocab_mask(build: Build, given: Given, noise: Noise) -> None:
    ids = np.repeat([3, 500, 501], 100)
    tokens = given(noise(300, 16), columns={"token_id": ids}, top_k=4)
    found = build("vocab_mask", freq_cut=100, visible=6).route(tokens)
    seen = [set(found.expert[np.isin(found.token, np.flatnonzero(ids == one))]) for one in (3, 500, 501)]
    assert [len(s) for s in seen] == [6, 1, 1] and len(found.experts_of(0)) == 4 and len(found.experts_of(100)) == 1


def test_codebook_vq(build: Build, given: Given) -> None:
    found = build("codebook_vq", codes=2, zipf=1.0).route(given(np.tile([9.0, 0, 0, 0], (6000, 1))))
    load = np.sort(found.load)[::-1]
    assert load[:2] == pytest.approx([4000, 2000], rel=0.05) and load[2:].tolist() == [0, 0], "usage 1 : 1/2"


def test_replay_mask_r3(build: Build, given: Given) -> None:
    columns = {"recorded": np.array([[3, 1], [2, 65535], [0, 2]], dtype=np.uint16)}
    tokens = given([[9, 0, 0, 1]] * 3, columns=columns)
    found = build("replay_mask_r3").route(tokens)
    assert [found.experts_of(t) for t in range(3)] == [[3, 1], [2], [0, 2]]
    assert found.weight[0] == pytest.approx(np.e / (np.e + 1)), "weights over the recorded mask"
    many = {"recorded": np.repeat(np.arange(1000)[:, None] % 64, 1, axis=1).astype(np.uint16)}
    other = build("replay_mask_r3", mismatch=0.25).route(given(np.zeros((1000, 64)), columns=many))
    assert np.mean(other.expert != np.arange(1000) % 64) == pytest.approx(0.25, abs=0.04)


def test_bias_lossfree(build: Build, given: Given, noise: Noise) -> None:
    router, tokens = build("bias_lossfree", k=1, u=0.1), given([[1.0, 0.9], [1.0, 0.0]])
    assert router.learn(tokens, router.route(tokens)) == pytest.approx([-0.1, 0.1])
    biased = router.route(replace(tokens, state=np.array([-0.1, 0.1])))
    assert biased.expert.tolist() == [1, 0] and biased.weight.tolist() == [1, 1]
    three = build("bias_lossfree", k=2).route(replace(given([[2.0, 1.0, 0.0]]), state=np.array([0, 0, 5.0])))
    scores = 1 / (1 + np.exp(-np.array([2.0, 0.0])))
    assert sorted(three.weight, reverse=True) == pytest.approx(scores / scores.sum()), "the bias is in no weight"


def test_prior_dirichlet(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(np.tile([9.0, 0, 0, 0, 0, 0, 0, 0], (3000, 1)), top_k=1)
    sharp, flat = (build("prior_dirichlet", alpha=[a], spread=0.0).route(tokens) for a in (0.05, 50.0))
    assert sharp.weight.mean() > 0.7 and flat.weight.mean() < 0.25 and sharp.max_vio < 0.2
    router, moved = build("prior_dirichlet", mode="shift", spread=0.0), given(noise(2000, 8, popularity=1.0))
    for _ in range(20):
        moved = replace(moved, state=router.learn(moved, router.route(moved)))
    assert moved.state is not None
    p = np.exp(moved.logits + moved.state)
    assert (p / p.sum(axis=1, keepdims=True)).mean(axis=0) == pytest.approx([1 / 8] * 8, abs=0.005)
