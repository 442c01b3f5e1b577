"""InPlaces: the choices of another source, as far as experts have places for a rank's rows; Megatron's token drop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.routing.routers.capacity import even_places, place_within
from moesim.routing.shape import NO_EXPERT
from moesim.routing.sources.source import Around, Experts, Rows, Tokens


@dataclass(frozen=True)
class Limit:
    """factor: places of an expert for the rows of one rank, over an even share of them; what comes later has none.
    pad: empty places are sent and computed too.
    """

    factor: float
    pad: bool = False

    def places(self, rows: npt.ArrayLike, experts: int) -> Tokens:
        """int64[...] rows that a rank chooses in a layer -> int64[...] of them that each expert takes at the most."""
        return even_places(rows, self.factor, experts)

    def taken(self, rows: int, experts: int) -> int:
        """Of `rows` that are chosen evenly those that are sent, padding included."""
        most = int(self.places(rows, experts)) * experts
        return most if self.pad else min(rows, most)


@dataclass(frozen=True)
class InPlaces(Around):
    """inner, whose rows on each rank take the places of their experts in the order of tokens."""

    limit: Limit

    @property
    def name(self) -> str:
        """As in RoutingSource."""
        return f"{self.inner.name}, {self.limit.factor:g} of an even share"

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """As in RoutingSource, with the tokens as those of one rank."""
        return self._kept(self.inner.experts(layer, request, position), np.zeros(len(request), dtype=np.int64))

    def rows(self, layer: int, request: Tokens, position: Tokens, rank: npt.NDArray[np.int32]) -> Rows:
        """As in RoutingSource. Padding is rows of one expert each, of a rank's first token."""
        kept = self._kept(self.inner.experts(layer, request, position), rank.astype(np.int64))
        if not self.limit.pad:
            return Rows(kept, request, position, rank)
        used = np.zeros((int(rank.max(initial=-1)) + 1, self.num_experts), dtype=np.int64)
        sent = kept != NO_EXPERT
        np.add.at(used, (np.broadcast_to(rank[:, None], kept.shape)[sent], kept[sent]), 1)
        free = self._places(rank)[:, None] - used
        who, expert = (np.repeat(axis, free.ravel()) for axis in np.divmod(np.arange(free.size), free.shape[1]))
        more = np.full((len(expert), self.top_k), NO_EXPERT, dtype=np.uint16)
        more[:, 0] = expert
        first = np.searchsorted(rank, np.arange(len(free)))[who]
        return Rows(
            np.concatenate([kept, more]), np.concatenate([request, request[first]]),
            np.concatenate([position, position[first]]), np.concatenate([rank, who.astype(np.int32)]),
        )  # fmt: skip

    def _places(self, rank: npt.NDArray[np.integer]) -> Tokens:
        """rank int[T] of each token -> int64[R]."""
        return self.limit.places(np.bincount(rank) * self.top_k, self.num_experts)

    def _kept(self, chosen: Experts, rank: Tokens) -> Experts:
        """uint16[T, k] -> the same, NO_EXPERT where there is no place left."""
        none = chosen == NO_EXPERT
        cell = np.where(none, 0, rank[:, None] * self.num_experts + chosen)
        place = np.full(chosen.shape, -1, dtype=np.int64)
        place[~none] = place_within(cell[~none])
        return np.where(place < self._places(rank)[rank][:, None], chosen, NO_EXPERT).astype(np.uint16)
