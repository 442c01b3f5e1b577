"""What the kinds of arrivals share: a rate that is more than nothing."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from moesim.units import Rate

Floats = npt.NDArray[np.float64]


def _positive(rate: float) -> float:
    if not 1e-6 <= rate <= 1e9:
        raise ValueError(f"a rate of {rate:g}/s is none: from 1e-6/s to 1e9/s")
    return rate


PositiveRate = Annotated[Rate, AfterValidator(_positive)]
