"""Routers that know groups, GPUs and nodes, or limited places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moesim.routing.routers import Router, RouterInput, Status
from moesim.routing.routers.locality_locmoe import smallest_capacity

Build = Callable[..., Router]
Given = Callable[..., RouterInput]
Noise = Callable[..., Any]


def test_prototypes_k_top1(build: Build, given: Given) -> None:
    found = build("prototypes_k_top1", k=2).route(given([[9, 8, 0, 1], [0, 1, 9, 8]]))
    assert [found.experts_of(t) for t in (0, 1)] == [[0, 3], [1, 2]]
    assert found.weight[:2] == pytest.approx([1 / (1 + np.exp(-1))] * 2), "softmax inside the group"
    limited = build("prototypes_k_top1", k=2, cf=1.0).route(given([[9, 8, 0, 1]] * 4))
    assert limited.load.tolist() == [2, 0, 0, 2] and limited.count(Status.DROPPED) == 4


def test_sam(build: Build, given: Given, noise: Noise) -> None:
    found = build("sam", k=2).route(given(np.log([[0.5, 0.05, 0.3, 0.15]]), ranks=2))
    assert found.experts_of(0) == [0, 1] and found.weight == pytest.approx([0.5, 0.05])
    many = given(noise(2000, 64), ranks=8, top_k=8)
    one = build("sam").route(many)
    assert {len({e // 8 for e in one.experts_of(t)}) for t in range(200)} == {1}


def test_bilevel_smile(build: Build, given: Given) -> None:
    row = [[2.0, -9, 1.5, 1.4]]  # node 1 wins by its sum although expert 0 is the best
    found = build("bilevel_smile", spread=0.0).route(given(row, ranks=2))
    sums = np.exp([2.0, -9]).sum(), np.exp([1.5, 1.4]).sum()
    inside = np.exp(1.5) / sums[1]
    assert found.experts_of(0) == [2] and found.weight == pytest.approx([sums[1] / sum(sums) * inside], rel=1e-5)
    full = build("bilevel_smile", spread=0.0, cf_node=1.0).route(given(row * 4, ranks=2))
    assert full.status.tolist() == [0, 0, 1, 1], "two of four tokens fit at one of two nodes"


def test_locality_locmoe(build: Build, given: Given) -> None:
    rows = [[1.0, 0, 0.5, 0]] * 2
    found = build("locality_locmoe", mu=0.8).route(given(rows, rank=[0, 1], ranks=2))
    assert found.expert.tolist() == [0, 2], "each stays on its own node: 1.8 against 0.5, 1.0 against 1.3"
    assert build("locality_locmoe", mu=0.2).route(given(rows, rank=[0, 1], ranks=2)).expert.tolist() == [0, 0]
    full = build("locality_locmoe", delta=0.0).route(given([[1, 0, 0, 0]] * 8, hidden=64))
    assert full.load.tolist() == [2, 0, 0, 0], "tokens that may be alike: an even share of places, T / E"
    wide = build("locality_locmoe", delta=0.1).route(given([[1, 0, 0, 0]] * 8, hidden=64))
    assert wide.load[0] == np.ceil(8 * smallest_capacity(4, 64, 0.1)) == 5, "1 / (4 erfc(0.567))"
    assert smallest_capacity(8, 0, 0.5) == 1 / 8 < smallest_capacity(8, 4, 0.5)


def test_parallel_t2mir(build: Build, given: Given, noise: Noise) -> None:
    """The best of the first three for the token, of the others for its task: alike for all tokens of that."""
    logits = noise(400, 6)
    tasks = np.arange(400) % 2
    found = build("parallel_t2mir", a=3).route(given(logits, columns={"domain": tasks}))
    ids = found.expert.reshape(400, 2)
    assert (ids[:, 0] == logits[:, :3].argmax(axis=1)).all() and (ids[:, 1] >= 3).all()
    assert len(set(ids[tasks == 0, 1])) == len(set(ids[tasks == 1, 1])) == 1


def test_contrast_scmoe(build: Build, given: Given) -> None:
    """Request 1 is the weak pass of request 0: by the same logits its second expert, whatever its own are."""
    rows = [[3, 2, 1, 0], [0, 1, 2, 3], [0, 1, 5, 4], [9, 0, 0, 0]]
    found = build("contrast_scmoe", k=2, rank=2).route(given(rows, request=np.arange(4)))
    assert [found.experts_of(token) for token in range(4)] == [[0, 1], [1], [2, 3], [3]]
    assert found.weight[found.token % 2 == 1] == pytest.approx(1.0)


def test_recurrent_hecto(build: Build, given: Given, noise: Noise) -> None:
    """Half of the tokens leave the FFNs; the GRU of a sequence of 100 has a step for each of its own."""
    tokens = given(noise(400, 6), request=np.arange(400) // 100, rank=np.arange(400) // 200, ranks=2, hidden=32)
    router = build("recurrent_hecto", split=0.5)
    found = router.route(tokens)
    left = np.bincount(found.owner[found.token[found.status == Status.NULL]] // 100, minlength=4)
    assert 160 < left.sum() < 240 and found.moves.sum() == 400 - left.sum()
    steps = [m for m, n, k in router.chores(tokens, found).gemms if (n, k) == (768, 256)]
    assert len(steps) == left.max() and sum(m.sum() for m in steps) == left.sum()
    assert steps[0].tolist() == [2, 2] and sum(m[0] for m in steps) == left[:2].sum()


def test_product_cartesian(build: Build, given: Given) -> None:
    found = build("product_cartesian", a=3).route(given([[1, 3, 2, 9, 8, 7]]))
    assert found.expert.tolist() == [1, 3] and found.round.tolist() == [0, 1]
    table, token = found.table()
    assert table.tolist() == [[1], [3]] and token.tolist() == [0, 0]


def test_cluster_moec(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(6000, 8, popularity=0), top_k=2)
    pairs = build("cluster_moec", clusters=4, rho=0.9).route(tokens).expert.reshape(-1, 2) // 2
    assert (pairs[:, 0] == pairs[:, 1]).mean() > 0.6 > 1 / 7, "two choices meet in one cluster"
    dropped = build("cluster_moec", clusters=4, rho=0.0, q=0.999).route(tokens)
    assert len(set(dropped.expert // 2)) == 1, "one cluster stays"


def test_rectify_intra_gpu(build: Build, given: Given) -> None:
    rows = [[5, 0, 2, 1]] * 4
    found = build("rectify_intra_gpu", inner={"name": "switch_top1", "cf": 1.0}).route(
        given(rows, rank=[0, 0, 1, 1], ranks=2)
    )
    assert found.expert.tolist() == [0, 0, 0, 2], "a place a rank; then the best expert that is at hand"
    assert found.status.tolist() == [Status.KEPT, Status.RECTIFIED, Status.KEPT, Status.RECTIFIED]
    p = np.exp([5, 0, 2, 1]) / np.exp([5, 0, 2, 1]).sum()
    assert found.weight[3] == pytest.approx(p[2]) and found.count(Status.DROPPED) == 0


def test_rectify_fill_in(build: Build, given: Given) -> None:
    rows = [[5, 0], [5, 1], [5, 2], [5, 3]]
    found = build("rectify_fill_in", inner={"name": "switch_top1", "cf": 1.0}, cf=1.0).route(given(rows))
    assert found.load.tolist() == [2, 2] and found.count(Status.DROPPED) == 2
    filled = found.token[found.status == Status.FILLED]
    assert filled.tolist() == [2, 3], "expert 1's two free places take the tokens that like it best"


def test_batch_priority(build: Build, given: Given) -> None:
    rows = [[1, 0], [3, 0], [2, 0], [4, 0]]
    plain = {"name": "topk_softmax", "k": 1, "norm_topk": False}
    by_score = build("batch_priority", inner=plain, cf=1.0).route(given(rows))
    assert by_score.status.tolist() == [1, 0, 1, 0]
    by_class = build("batch_priority", inner=plain, cf=1.0, order="class").route(
        given(rows, columns={"domain": [1, 1, 0, 0]})
    )
    assert by_class.status.tolist() == [1, 1, 0, 0]
    assert build("batch_priority", inner=plain, order="token").route(given(rows)).status.tolist() == [0, 0, 1, 1]


def test_reduce_k_or_E(build: Build, given: Given) -> None:
    rows = np.log([[0.4, 0.3, 0.2, 0.1]])
    fewer = build("reduce_k_or_E", na=2, inner={"name": "topk_softmax", "k": 3}).route(given(rows))
    assert fewer.experts_of(0) == [0, 1] and fewer.weight == pytest.approx([4 / 7, 3 / 7])
    pruned = build("reduce_k_or_E", pruned=[0, 2]).route(given(rows))
    assert pruned.experts_of(0) == [1, 3] and pruned.weight == pytest.approx([3 / 4, 1 / 4])
    columns = {"recorded": np.array([[0, 1]], dtype=np.uint16)}
    replayed = build("reduce_k_or_E", pruned=[0], inner="replay_mask_r3").route(given(rows, columns=columns))
    assert replayed.experts_of(0) == [1] and replayed.weight[1] == 1 and replayed.drop_rate == 0.5


def test_speculative_shuffle(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(4000, 8), rank=np.arange(4000) % 4, ranks=4, top_k=1)
    sure = build("speculative_shuffle", accuracy=1.0).route(tokens)
    assert np.array_equal(sure.rank, sure.expert // 2), "every token starts where its expert is"
    often = build("speculative_shuffle", accuracy=0.6).route(tokens)
    assert (often.rank == often.expert // 2).mean() == pytest.approx(0.6 + 0.4 / 4, abs=0.02)
