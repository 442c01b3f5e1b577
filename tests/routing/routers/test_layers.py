"""Routers that tie layers, positions, requests or classes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from moesim.routing.routers import Router, RouterInput

Build = Callable[..., Router]
Given = Callable[..., RouterInput]
Noise = Callable[..., Any]


def layered(noise: Noise, tokens: int, experts: int, layers: int) -> Any:
    return np.stack([noise(tokens, experts, seed=n, popularity=0) for n in range(layers)])


def test_shared_omni(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(layered(noise, 500, 16, 4), top_k=2)
    router = build("shared_omni", group=2, eps=0.0)
    first, second, third = (router.route(replace(tokens, layer=n)).expert for n in range(3))
    assert np.array_equal(first, second) and not np.array_equal(second, third)
    loose = build("shared_omni", group=2, eps=0.3).route(replace(tokens, layer=1)).expert
    assert 0.5 < (loose == first).mean() < 0.95


def test_recurrent_rmoe(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(layered(noise, 3000, 8, 2), top_k=1)
    tied = build("recurrent_rmoe", rho=1.0)
    before, after = (tied.route(replace(tokens, layer=n)).expert for n in (0, 1))
    follower = {e: set(after[before == e]) for e in range(8)}
    loose = build("recurrent_rmoe", rho=0.0).route(replace(tokens, layer=1)).expert
    assert np.array_equal(loose, tokens.columns["logits"](1, tokens.request, tokens.position).argmax(axis=1))
    assert max(len(s) for s in follower.values()) < 8, "with rho = 1 a layer's signs and order decide the next"


def test_pool_rexmoe(build: Build, given: Given) -> None:
    rows = np.array([[[9, 0]], [[8, 1]], [[0, 7]]])
    found = build("pool_rexmoe", w=1, k=3).route(given(rows, layer=1))
    assert found.experts_of(0) == [0, 2, 5] and found.experts == 6
    assert found.table()[0].tolist() == [[0, 0, 1]], "expert j of another layer sits where the own j does"
    growing = build("pool_rexmoe", w=1, grow=10, k=2)
    assert [growing.route(given(rows, layer=1, step=s)).experts for s in (0, 10)] == [2, 6]


def test_iterated_coe(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(1000, 16), top_k=4)
    found = build("iterated_coe", rounds=2).route(tokens)
    table, token = found.table()
    assert table.shape == (2000, 2) and np.array_equal(token, np.tile(np.arange(1000), 2))
    assert found.mean_k == 4 and np.bincount(found.round).tolist() == [2000, 2000]
    again = build("iterated_coe", rounds=2, spread=0.0).route(tokens).table()[0]
    assert np.array_equal(again[:1000], again[1000:]) and not np.array_equal(table[:1000], table[1000:])


def test_pregated_readme(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(layered(noise, 300, 16, 3), top_k=2)
    rows = [build("pregated_readme").route(replace(tokens, layer=n)).expert for n in range(3)]
    assert np.array_equal(rows[0], rows[1]) and np.array_equal(rows[0], rows[2])


def test_similarity_mix(build: Build, given: Given) -> None:
    rows = [[0, 4.0, 0], [3.0, 2.0, 0], [0, 0, 9.0]]
    found = build("similarity_mix", a=0.5, neighbours=1, inner={"name": "topk_softmax", "k": 1}).route(given(rows))
    assert found.expert.tolist() == [1, 1, 2], "the second becomes (1.5, 3, 0)"
    alone = build("similarity_mix", a=0.5, neighbours=1).route(given(rows, request=[0, 1, 2]))
    assert alone.experts_of(1)[0] == 0, "another request is no neighbour"


def test_mixture_of_routers(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(3000, 16), top_k=2)
    found = build("mixture_of_routers", routers=3).route(tokens)
    gemms = build("mixture_of_routers", routers=3).chores(tokens, found).gemms
    assert [n for _, n, _ in gemms] == [16, 16, 16, 3] and gemms[0][0].tolist() == [3000]
    plain = build("mixture_of_routers", routers=3, spread=0.0).route(tokens)
    assert 0.3 < (found.expert == plain.expert).mean() < 0.9, "sub-routers disagree, and their mixture with each"


def test_scope_static(build: Build, given: Given, noise: Noise) -> None:
    who = np.repeat([0, 1, 2, 3], 50)
    tokens = given(noise(200, 16), request=who, columns={"domain": who % 2}, top_k=2)
    whole = build("scope_static").route(tokens).expert.reshape(4, 50, 2)
    assert (whole == whole[:, :1]).all() and not (whole == whole[:1, :1]).all()
    parts = build("scope_static", scope="segment", length=25).route(tokens).expert.reshape(8, 25, 2)
    assert (parts == parts[:, :1]).all() and not np.array_equal(parts[0], parts[1])
    task = build("scope_static", scope="domain").route(tokens).expert.reshape(4, 50, 2)
    assert np.array_equal(task[0], task[2]) and np.array_equal(task[1], task[3])


def test_conditioned_topk(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(2000, 16, popularity=0), columns={"domain": np.arange(2000) % 2}, top_k=1)
    found = build("conditioned_topk", a=3.0).route(tokens)
    first, second = (np.bincount(found.expert[d::2], minlength=16) / 1000 for d in (0, 1))
    assert np.abs(first - second).sum() / 2 > 0.5, "classes use other experts"
    assert np.array_equal(
        build("conditioned_topk", a=0.0).route(tokens).expert, build("topk_softmax", k=1).route(tokens).expert
    )


def test_additive_testtime(build: Build, given: Given) -> None:
    tokens = given(np.zeros((3, 64, 8)), request=0, top_k=1, layer=2)
    drift = build("additive_testtime", layers=1, interval=16, eta=1.0).route(tokens).expert.reshape(4, 16)
    drift = drift[1:]
    assert (drift == drift[:, :1]).all() and len(set(drift[:, 0].tolist())) > 1, "one walk step an interval"
    assert set(build("additive_testtime", layers=1, steer=[5], strength=2.0).route(tokens).expert) == {5}
    assert set(build("additive_testtime", layers=1, steer=[5]).route(replace(tokens, layer=1)).expert) == set(range(8))
