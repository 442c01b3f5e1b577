"""What one step works on: sequences on ranks, and the tokens they bring."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Phase = Literal["decode", "prefill", "train"]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One row per sequence: int64[S] rank (ascending), request, query (new tokens), context (tokens before them).

    A training micro-batch is a Batch too: its sequences start at context 0. Everything per token is derived.
    """

    phase: Phase
    ranks: int
    rank: Ints
    request: Ints
    query: Ints
    context: Ints

    @property
    def tokens(self) -> int:
        """New tokens of the whole batch."""
        return int(self.query.sum())

    @cached_property
    def tokens_of_rank(self) -> Ints:
        """int64[ranks]: new tokens on each rank."""
        return np.bincount(self.rank, weights=self.query, minlength=self.ranks).astype(np.int64)

    @cached_property
    def token_rank(self) -> npt.NDArray[np.int32]:
        """int32[tokens]: the rank each token starts from."""
        return np.repeat(self.rank, self.query).astype(np.int32)

    @cached_property
    def token_request(self) -> Ints:
        """int64[tokens]: the request each token belongs to."""
        return np.repeat(self.request, self.query)

    @cached_property
    def token_position(self) -> Ints:
        """int64[tokens]: the position of each token in its request."""
        before = np.cumsum(self.query) - self.query
        return np.arange(self.tokens) - np.repeat(before - self.context, self.query)

    def split(self, parts: int) -> tuple[Batch, ...]:
        """Near-equal parts by sequences, the same way on every rank; one part gives the batch itself."""
        if parts == 1:
            return (self,)
        first = np.searchsorted(self.rank, np.arange(self.ranks))
        count = np.bincount(self.rank, minlength=self.ranks)
        part = (np.arange(len(self.rank)) - first[self.rank]) * parts // np.maximum(count[self.rank], 1)
        return tuple(self._only(part == index) for index in range(parts))

    def on_ranks(self, ranks: npt.NDArray[np.int32]) -> Batch:
        """The sequences of consecutive `ranks`, renumbered from 0."""
        keep = (self.rank >= ranks[0]) & (self.rank <= ranks[-1])
        part = self._only(keep)
        return Batch(self.phase, len(ranks), part.rank - int(ranks[0]), part.request, part.query, part.context)

    def _only(self, keep: npt.NDArray[np.bool_]) -> Batch:
        columns = (self.rank[keep], self.request[keep], self.query[keep], self.context[keep])
        return Batch(self.phase, self.ranks, *columns)


def uniform_batch(phase: Phase, ranks: int, tokens_per_rank: int, context: int, *, first_request: int = 0) -> Batch:
    """Equal sequences everywhere: decode takes one token of `context` earlier ones, the others whole sequences.

    Requests are numbered from `first_request` on. Raises BadInput where sequences do not fill the tokens evenly.
    """
    query, earlier = (1, context) if phase == "decode" else (context, 0)
    if query < 1 or tokens_per_rank < 1 or tokens_per_rank % query:
        nearest = max(tokens_per_rank // max(query, 1), 1) * max(query, 1)
        raise BadInput(
            f"{tokens_per_rank} tokens a GPU are not whole sequences of {query}",
            where="batch.tokens_per_gpu",
            way_out=f"{nearest}",
        )
    sequences = ranks * (tokens_per_rank // query)
    return Batch(
        phase,
        ranks,
        rank=np.repeat(np.arange(ranks), sequences // ranks),
        request=first_request + np.arange(sequences),
        query=np.full(sequences, query, dtype=np.int64),
        context=np.full(sequences, earlier, dtype=np.int64),
    )
