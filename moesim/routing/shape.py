"""RoutingShape: what routing has to know of a model, and the digest that tells whose trace may be replayed where."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from moesim.errors import BadInput

NO_EXPERT = 65535  # a choice that no expert took: dropped, null, or fewer than k


class RoutingShape(Protocol):
    """The part of a model that routing sees; `moesim.models.MoEModel` has it."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def moe_layers(self) -> Sequence[int]:
        """Model layer indices of the layers that have experts."""

    @property
    def num_experts(self) -> int:
        """Routed experts of a layer."""

    @property
    def top_k(self) -> int:
        """Experts of a token."""

    @property
    def hidden_size(self) -> int:
        """Width of a token's row."""

    @property
    def num_groups(self) -> int:
        """Groups of experts for group-limited routing; 1: none."""

    @property
    def topk_groups(self) -> int:
        """Groups that a token may touch."""


def routing_digest(name: str, layers: int, experts: int, top_k: int) -> str:
    """Names the models whose traces are interchangeable: same name and same routing shape."""
    return hashlib.sha256(f"{name}|{layers}|{experts}|{top_k}".encode()).hexdigest()[:16]


def digest_of(model: RoutingShape) -> str:
    """`routing_digest` of a model."""
    return routing_digest(model.name, len(model.moe_layers), model.num_experts, model.top_k)


def check_sizes(layers: int, experts: int, top_k: int, where: str = "") -> None:
    """Raises BadInput for sizes that no trace can have."""
    if not (1 <= layers <= 4096 and 1 <= experts < NO_EXPERT and 1 <= top_k <= min(experts, 1024)):
        raise BadInput(f"{layers} layers with top-{top_k} of {experts} experts", where=where)
