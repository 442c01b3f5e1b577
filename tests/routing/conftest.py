"""Small models and traces that the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from moesim.routing import RoutingShape, RoutingTrace, TraceHeader, make_trace


@dataclass(frozen=True)
class Shape:
    """The routing-relevant part of a model."""

    name: str
    moe_layers: tuple[int, ...]
    num_experts: int
    top_k: int
    num_groups: int = 1
    topk_groups: int = 1
    hidden_size: int = 64


def random_trace(tokens: int = 600, layers: int = 3, experts: int = 16, top_k: int = 4, seed: int = 0) -> RoutingTrace:
    """Requests of 25 tokens, two domains, distinct experts, weights that fall."""
    rng = np.random.default_rng(seed)
    expert = np.argsort(rng.random((tokens, layers, experts)), axis=2)[:, :, :top_k]
    weight = -np.sort(-rng.dirichlet(np.ones(top_k), (tokens, layers)), axis=2)
    number = np.arange(tokens)
    header = TraceHeader("toy", layers, experts, top_k, "drawn for a test", ("a", "b"))
    return make_trace(
        header,
        expert,
        request=number // 25 * 3,
        position=number % 25,
        phase=(number % 25 >= 10).astype(int),
        domain=number // 25 % 2,
        step=number // 50,
        source_rank=number // 25 % 4,
        weight=weight,
    )


@pytest.fixture
def trace() -> RoutingTrace:
    """600 tokens, 3 layers, top-4 of 16."""
    return random_trace()


@pytest.fixture
def shape() -> Callable[..., RoutingShape]:
    """shape(name, moe_layers, num_experts, top_k, num_groups, topk_groups) -> the routing part of a model."""
    return Shape


@pytest.fixture
def make() -> Callable[..., RoutingTrace]:
    """make(tokens, layers, experts, top_k, seed) -> a random trace."""
    return random_trace


@pytest.fixture
def toy() -> RoutingShape:
    """The model that `trace` was recorded from."""
    return Shape("toy", (0, 1, 2), 16, 4)


@pytest.fixture
def deepseek() -> RoutingShape:
    """The routing shape of DeepSeek-V3."""
    return Shape("deepseek-ai/DeepSeek-V3", tuple(range(3, 61)), 256, 8, 8, 4)
