"""Blocks of integers in one growing array; a coflow borrows a block and gives it back."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Owner = TypeVar("Owner")


class Blocks(Generic[Owner]):
    """values int64[...]; owner[...]: who borrowed each place last."""

    def __init__(self) -> None:
        self.values: npt.NDArray[np.int64] = np.zeros(1024, dtype=np.int64)
        self.owner: list[Owner] = []
        self._free: dict[int, list[int]] = {}

    def borrow(self, values: npt.NDArray[np.int64], owner: Owner) -> int:
        """A block that holds `values` -> its first place."""
        free = self._free.get(len(values))
        base = free.pop() if free else self._extend(len(values), owner)
        self.values[base : base + len(values)] = values
        self.owner[base : base + len(values)] = [owner] * len(values)
        return base

    def give_back(self, base: int, count: int) -> None:
        """The block is free again."""
        self._free.setdefault(count, []).append(base)

    def _extend(self, count: int, owner: Owner) -> int:
        base = len(self.owner)
        self.owner += [owner] * count
        if len(self.owner) > len(self.values):
            self.values = np.concatenate((self.values, np.zeros(len(self.owner), dtype=np.int64)))
        return base
