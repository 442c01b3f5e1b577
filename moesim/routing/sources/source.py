"""RoutingSource: what a simulation asks of its routing."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from moesim.routing.routers import Chores

Experts = npt.NDArray[np.uint16]
Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """What is sent in a layer: experts uint16[N, k] of N rows, each of a token (request, position int64[N]) on a rank
    int32[N]. N is the number of tokens, or of slots in place of tokens, times `rounds` that follow each other: the rows
    of one round stand together. `chores` are a router's own work, None where a plain gate decides.
    """

    experts: Experts
    token_request: Tokens
    token_position: Tokens
    token_rank: npt.NDArray[np.int32]
    rounds: int = 1
    chores: Chores | None = None

    def by_round(self) -> tuple[Rows, ...]:
        """The rows of each round, which starts where the one before has ended."""
        size = len(self.experts) // self.rounds
        parts = [slice(first * size, (first + 1) * size) for first in range(self.rounds)]
        return tuple(
            Rows(self.experts[part], self.token_request[part], self.token_position[part], self.token_rank[part])
            for part in parts
        )


class RoutingSource(Protocol):
    """Answers which experts a token takes, in every layer, independent of order, step and batch.

    Only a router whose facts say so (`routers.Facts.batch_dependent`) may answer `rows` by what else is in the batch.
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

    def rows(self, layer: int, request: Tokens, position: Tokens, rank: npt.NDArray[np.int32]) -> Rows:
        """What the whole batch of a layer sends: request, position int64[T], rank int32[T] of its tokens."""

    def earlier(self) -> Self:
        """The same at an earlier time, which a placement is planned on."""

    @property
    def planned_on(self) -> str:
        """What `earlier` is, in words."""


class PerToken:
    """The `rows` of a source that knows each token by itself: one row a token; its load does not move with time."""

    planned_on = "other tokens of the same load"

    @abstractmethod
    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """As in RoutingSource."""

    def rows(self, layer: int, request: Tokens, position: Tokens, rank: npt.NDArray[np.int32]) -> Rows:
        """As in RoutingSource."""
        return Rows(self.experts(layer, request, position), request, position, rank)

    def earlier(self) -> Self:
        """As in RoutingSource."""
        return self


@dataclass(frozen=True)
class Around(PerToken):
    """A source that says what it does not change as `inner` does."""

    inner: RoutingSource

    @property
    def basis(self) -> str:
        """As in RoutingSource."""
        return self.inner.basis

    @property
    def notes(self) -> tuple[str, ...]:
        """As in RoutingSource."""
        return self.inner.notes

    @property
    def moe_layers(self) -> int:
        """As in RoutingSource."""
        return self.inner.moe_layers

    @property
    def num_experts(self) -> int:
        """As in RoutingSource."""
        return self.inner.num_experts

    @property
    def top_k(self) -> int:
        """As in RoutingSource."""
        return self.inner.top_k
