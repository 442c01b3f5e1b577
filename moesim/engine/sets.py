"""Counters of watched sets in one growing array; a coflow borrows a block and gives it back."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Owner = TypeVar("Owner")


class Sets(Generic[Owner]):
    """left int64[...]: how much each set still waits for; owner[...]: who borrowed it last."""

    def __init__(self) -> None:
        self.left: npt.NDArray[np.int64] = np.zeros(1024, dtype=np.int64)
        self.owner: list[Owner] = []
        self._free: dict[int, list[int]] = {}

    def borrow(self, counts: npt.NDArray[np.int64], owner: Owner) -> int:
        """A block that starts at `counts` -> its first number."""
        free = self._free.get(len(counts))
        base = free.pop() if free else self._extend(len(counts), owner)
        self.left[base : base + len(counts)] = counts
        self.owner[base : base + len(counts)] = [owner] * len(counts)
        return base

    def give_back(self, base: int, count: int) -> None:
        """The block is free again."""
        self._free.setdefault(count, []).append(base)

    def _extend(self, count: int, owner: Owner) -> int:
        base = len(self.owner)
        self.owner += [owner] * count
        if len(self.owner) > len(self.left):
            self.left = np.concatenate((self.left, np.zeros(len(self.owner), dtype=np.int64)))
        return base
