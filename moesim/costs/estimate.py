"""Estimate: seconds with their provenance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Basis = Literal["measured", "fitted", "assumed"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """seconds float64[...]; outside bool[...] marks shapes beyond the measured hull; one error is drawn per family.

    role, kernel: what was asked for, and the measured kernel that answers; "" where no measured one does. flops, bytes
    float64[...]: what physics has to do for it, in arithmetic of `dtype`.
    """

    seconds: Floats
    family: str
    basis: Basis
    outside: npt.NDArray[np.bool_]
    role: str = ""
    kernel: str = ""
    flops: Floats | float = 0.0
    bytes: Floats | float = 0.0
    dtype: str = "bf16"
