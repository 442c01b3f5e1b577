"""Experts of one rank: the grouped kernels, and the loop over experts that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from moesim.calibration.measure.case import Case
from moesim.calibration.operators.activation import activate
from moesim.calibration.operators.operator import Place

grouped_mm = getattr(functional, "grouped_mm", None) or torch._grouped_mm  # public since torch 2.10


@dataclass(frozen=True)
class Experts:
    """up [G, width, hidden] and down [G, hidden, inter] as weights lie in memory; matrices as in records; down is
    empty where an expert is one bare GEMM. sizes: rows of each expert; ends int32[G] on the device.
    """

    up: torch.Tensor
    down: torch.Tensor
    matrices: int
    sizes: tuple[int, ...]
    ends: torch.Tensor

    @staticmethod
    def of(case: Case, place: Place, *, dtype: str, sizes: Sequence[int]) -> Experts:
        """Random weights, scaled so that values keep their size."""
        hidden, inter, matrices = case["hidden"], case["inter"] // max(case["tp"], 1), case["matrices"]
        width = inter * max(matrices - 1, 1)
        up = place.random(len(sizes), width, hidden, dtype=dtype).mul_(hidden**-0.5)
        down = place.random(len(sizes), hidden, inter if matrices > 1 else 0, dtype=dtype).mul_(inter**-0.5)
        ends = torch.tensor(sizes).cumsum(0).to(torch.int32).to(place.target.device)
        return Experts(up, down, matrices, tuple(sizes), ends)

    def activate(self, wide: torch.Tensor) -> torch.Tensor:
        """[rows, width] -> [rows, inter]."""
        return activate(wide, self.matrices)

    def grouped(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] sorted by expert -> [rows, hidden], in two grouped GEMMs (one if matrices is 1)."""
        if not len(rows):
            return rows.new_empty(0, self.out_width)
        wide = grouped_mm(rows, self.up.transpose(-2, -1), offs=self.ends)
        if self.matrices == 1:
            return wide
        return grouped_mm(self.activate(wide), self.down.transpose(-2, -1), offs=self.ends)

    def loop(self, rows: torch.Tensor) -> torch.Tensor:
        """The same, expert by expert."""
        parts = [self._one(expert, part) for expert, part in enumerate(rows.split(self.sizes)) if len(part)]
        return torch.cat(parts) if parts else rows.new_empty(0, self.out_width)

    def _one(self, expert: int, rows: torch.Tensor) -> torch.Tensor:
        wide = rows @ self.up[expert].to(rows.dtype).T
        return wide if self.matrices == 1 else self.activate(wide) @ self.down[expert].to(rows.dtype).T

    @property
    def out_width(self) -> int:
        """Columns of the result."""
        return int(self.up.shape[1] if self.matrices == 1 else self.down.shape[1])

    def reference(self, rows: torch.Tensor) -> torch.Tensor:
        """The loop in fp32; weights are widened expert by expert."""
        return self.loop(rows.float())

    def flops(self) -> float:
        """A multiply-add counts two."""
        return 2.0 * sum(self.sizes) * float(self.up[0].numel() + self.down[0].numel())

    def bytes(self, row_bytes: int) -> float:
        """Weights of the experts that have rows, and the rows in and out."""
        active = sum(size > 0 for size in self.sizes)
        weights = (self.up[0].numel() + self.down[0].numel()) * self.up.element_size()
        return float(active * weights + sum(self.sizes) * row_bytes * (self.up.shape[2] + self.out_width))
