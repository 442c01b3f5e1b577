"""Paged KV cache of one scheduler: blocks are counted, as no prefix is shared and every block is like every other."""

from __future__ import annotations

import numpy as np

from moesim.errors import BrokenInvariant
from moesim.serving.requests import Ints


class Blocks:
    """`total` blocks of `size` tokens; held int64[requests]."""

    def __init__(self, total: int, size: int, requests: int) -> None:
        self.total, self.size, self.free = total, size, total
        self.held: Ints = np.zeros(requests, dtype=np.int64)
        self.taken = self.returned = 0

    def of(self, tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-tokens // self.size)

    def hold(self, request: int, tokens: int) -> bool:
        """Give a request what it lacks for so many tokens; False, and nothing, where there are not enough."""
        more = self.of(tokens) - int(self.held[request])
        if more > self.free:
            return False
        if more > 0:
            self.held[request] += more
            self.free -= more
            self.taken += more
        return True

    def lacking(self, requests: Ints, cached: Ints) -> Ints:
        """int64: of these requests, those who need a block for one token more than the cached int64[...]."""
        return requests[cached >= self.held[requests] * self.size]

    def grow(self, requests: Ints) -> None:
        """One block more for each, which has to be free."""
        if not len(requests):
            return
        self.held[requests] += 1
        self.free -= len(requests)
        self.taken += len(requests)

    def hold_all(self, requests: Ints, tokens: Ints) -> None:
        """Give each what it lacks for so many tokens, int64[...] each; there have to be enough."""
        more = np.maximum(-(-tokens // self.size) - self.held[requests], 0)
        self.held[requests] += more
        self.free -= int(more.sum())
        self.taken += int(more.sum())

    def give_back(self, request: int) -> None:
        """All of a request's."""
        many = int(self.held[request])
        self.held[request] = 0
        self.free += many
        self.returned += many

    def check_integrity(self) -> None:
        """Raises BrokenInvariant where blocks were lost, made up, or handed out twice."""
        held = int(self.held.sum())
        if self.free < 0 or (self.held < 0).any() or self.free + held != self.total:
            raise BrokenInvariant(f"{self.free} blocks free and {held} held of {self.total}")
        if self.taken - self.returned != held:
            raise BrokenInvariant(f"{self.taken} blocks taken, {self.returned} returned, {held} held")
