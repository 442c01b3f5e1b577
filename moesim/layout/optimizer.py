"""Optimizers: what they keep of each parameter, and the bytes that an update moves. One line adds one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from moesim.layout.spread import Part

FP32, BF16 = 4, 2


@dataclass(frozen=True)
class Optimizer:
    """moments: fp32 numbers kept of each parameter; factored: sums over rows and columns of each matrix instead of a
    second moment (Adafactor: Shazeer, Stern 2018); orthogonal: the momentum of a whole weight matrix is made orthogonal
    before it is added (Muon: Jordan et al. 2024), of all but the vocabulary's tables, which have Adam; master: an fp32
    copy of the bf16 parameters beside them.
    """

    name: str
    moments: int
    factored: bool = False
    orthogonal: bool = False
    master: bool = True

    @property
    def bytes_per_parameter(self) -> int:
        """Kept of each parameter."""
        return FP32 * (self.moments + self.master)

    @property
    def of_tables(self) -> Optimizer:
        """What updates embedding and output head."""
        return replace(OPTIMIZERS["adam"], master=self.master) if self.orthogonal else self

    def factors(self, parts: Iterable[Part]) -> int:
        """Bytes kept of each matrix of one rank's `parts`, beside those of each parameter."""
        if not self.factored:
            return 0
        return sum(FP32 * (gemm.n + gemm.k) * part.layers for part in parts for gemm in part.gemms)

    def update_bytes(self, gradient_bytes: int) -> int:
        """Moved for each parameter: gradient read, once more for the norm of all (again where its sums come first),
        what is kept read and written, the bf16 parameter written, and read where there is no fp32 copy; where the
        momentum is made orthogonal, it is written for that in bf16, and what comes of it read.
        """
        gradient = gradient_bytes * (3 if self.factored else 2)
        handed = 2 * BF16 if self.orthogonal else 0
        return gradient + handed + 2 * self.bytes_per_parameter + BF16 * (1 if self.master else 2)


OPTIMIZERS: Final = {
    "adam": Optimizer("adam", 2),
    "momentum": Optimizer("momentum", 1),
    "sgd": Optimizer("sgd", 0),
    "adafactor": Optimizer("adafactor", 0, factored=True),
    "muon": Optimizer("muon", 1, orthogonal=True),
}
