"""RoutingSource: what a simulation asks of its routing."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Experts = npt.NDArray[np.uint16]
Tokens = npt.NDArray[np.int64]


class RoutingSource(Protocol):
    """Answers which experts a token takes, in every layer, independent of order, step and batch.

    `basis` is "recorded" or says what was assumed; `notes` are sentences that the Result repeats.
    """

    @property
    def name(self) -> str:
        """For the provenance of a Result."""

    @property
    def basis(self) -> str:
        """ "recorded", "transplanted, assumed", "sampled, assumed" or "balanced, assumed"."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that the Result repeats."""

    @property
    def moe_layers(self) -> int:
        """Layers that have experts."""

    @property
    def num_experts(self) -> int:
        """Of a layer."""

    @property
    def top_k(self) -> int:
        """Choices of a token."""

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """request int64[T], position int64[T] -> uint16[T, k], NO_EXPERT where a choice is none; layer < moe_layers."""
