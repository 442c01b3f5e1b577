"""Estimate: seconds with their provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Basis = Literal["measured", "fitted", "assumed"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """seconds float64[...]; outside bool[...] marks shapes beyond the measured hull; one error is drawn per family."""

    seconds: Floats
    family: str
    basis: Basis
    outside: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CommunicationCost:
    """What the kernels of one all-to-all or collective add and achieve.

    alpha: seconds before the first byte; efficiency: fraction of the nominal rate reached per tier ("nvlink", "nic");
    sms: SMs its kernels hold while they run beside compute.
    """

    alpha: float
    efficiency: Mapping[str, float] = field(default_factory=dict)
    sms: int = 0
    basis: Basis = "assumed"
    source: str = ""
