"""The token's id decides.

Source: Hash Layers (Roller et al., arXiv 2106.04426: random and balanced tables); Hetu's HashGate as code read.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from moesim import streams
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, passes
from moesim.routing.routers.input import Ints, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import rows_of_table


class Hash(Router):
    """e = h(id) mod E, or a table that spreads ids of frequency 1 / (id + 1) evenly; weight 1."""

    table: Literal["hash", "balanced"] = Field("hash", description="hashed ids, or a table that evens frequencies")
    seed: int = Field(0, ge=0, description="of the hash")
    vocabulary: int = Field(50_000, ge=1, le=1_000_000, description="ids in the balanced table; others are hashed")

    @property
    def facts(self) -> Facts:
        """Known as soon as the token is."""
        return Facts(needs=frozenset({"token_id"}), prefetch="by token id")

    def route(self, given: RouterInput) -> Assignment:
        """One row a token."""
        ids = given.column("token_id").astype(np.int64)
        salt = streams.key("router", "hash", self.seed, given.layer)
        chosen = (streams.hash_ints(salt, ids) % np.uint64(given.experts)).astype(np.int64)
        if self.table == "balanced":
            even = _balanced(self.vocabulary, given.experts)
            chosen = np.where(ids < self.vocabulary, even[np.minimum(ids, self.vocabulary - 1)], chosen)
        return rows_of_table(given, chosen[:, None], np.ones((given.tokens, 1), dtype=np.float32))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A look into a table: an id and an expert a token. No gate."""
        return passes(given, 3, 1)


@lru_cache(maxsize=4)
def _balanced(vocabulary: int, experts: int) -> Ints:
    """int64[vocabulary]: the most frequent id first, each to the expert with the least frequency so far."""
    heap = [(0.0, expert) for expert in range(experts)]
    table = np.empty(vocabulary, dtype=np.int64)
    for number in range(vocabulary):
        load, expert = heap[0]
        table[number] = expert
        heapq.heapreplace(heap, (load + 1 / (number + 1), expert))
    return table
