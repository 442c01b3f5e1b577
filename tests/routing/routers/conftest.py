"""Inputs made by hand, and the proof that a router's test fails where plain top-k takes the router's place.

A test that uses `build` runs twice: with the routers themselves, and with plain top-k (with random experts for
`topk_softmax` itself) in their place, where it has to fail by an assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from moesim.routing.routers import Column, Router, RouterInput, build_router

PLAIN = "plain top-k"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "build" in metafunc.fixturenames:
        metafunc.parametrize("build", ["itself", PLAIN], indirect=True)


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Callable[..., Router]:
    """build(name, **parameters) -> the router, or what stands in its place."""

    def itself(name: str, **parameters: Any) -> Router:
        return build_router({"name": name, **parameters})

    def plain(name: str, **parameters: Any) -> Router:
        if name == "topk_softmax":
            return build_router("random_thor")
        k = parameters.get("k")
        return build_router({"name": "topk_softmax", "k": k if isinstance(k, int) else None})

    return plain if request.param == PLAIN else itself


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    callspec = getattr(pyfuncitem, "callspec", None)
    if callspec is None or callspec.params.get("build") != PLAIN:
        return (yield)
    try:
        yield
    except AssertionError:
        return True
    return pytest.fail("the test passes with plain top-k in the router's place")


def by_hand(
    logits: npt.ArrayLike,
    *,
    request: npt.ArrayLike = 0,
    rank: npt.ArrayLike = 0,
    ranks: int = 1,
    gpus_per_node: int = 1,
    columns: dict[str, npt.ArrayLike] | None = None,
    **more: Any,
) -> RouterInput:
    """logits [T, E], or [L, T, E] for several layers. Positions count within a request; columns are [T, ...]."""
    tables = np.asarray(logits, dtype=np.float32)
    tables = tables if tables.ndim == 3 else tables[None]
    layers, tokens, experts = tables.shape
    who = np.broadcast_to(np.asarray(request), tokens).astype(np.int64)
    position = np.array([np.count_nonzero(who[:t] == who[t]) for t in range(tokens)], dtype=np.int64)
    row = {(int(r), int(p)): t for t, (r, p) in enumerate(zip(who, position, strict=True))}

    def rows(request: npt.NDArray[Any], position: npt.NDArray[Any]) -> list[int]:
        return [row.get((int(r), int(p)), int(r) % tokens) for r, p in zip(request, position, strict=True)]

    def column(values: npt.ArrayLike) -> Column:
        table = np.asarray(values)
        return lambda layer, request, position: table[rows(request, position)]

    lookups: dict[str, Column] = {name: column(values) for name, values in (columns or {}).items()}
    lookups["logits"] = lambda layer, request, position: tables[layer][rows(request, position)]
    facts: dict[str, Any] = {"top_k": 2, "layers": layers, **more}
    return RouterInput(
        experts=experts,
        request=who,
        position=position,
        rank=np.broadcast_to(np.asarray(rank), tokens).astype(np.int64),
        columns=lookups,
        expert_rank=np.arange(experts) * ranks // experts,
        rank_node=np.arange(ranks) // gpus_per_node,
        **facts,
    )


@pytest.fixture
def given() -> Callable[..., RouterInput]:
    """given(logits, ...) -> RouterInput."""
    return by_hand


@pytest.fixture
def noise() -> Callable[..., npt.NDArray[np.float32]]:
    """noise(tokens, experts, seed, popularity) -> the catalogue's logits: N(0, 1) + popularity x N(0, 1) an expert."""

    def drawn(tokens: int, experts: int, seed: int = 0, popularity: float = 0.5) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        found = rng.normal(size=(tokens, experts)) + popularity * rng.normal(size=experts)
        return found.astype(np.float32)

    return drawn
