"""Which of several loads are different: near copies are found, and each different load weighs as much as another.

A load that comes back is no news, and what was recorded twice must not count twice. Two loads whose shares of experts
differ by less than NEAR (total variation, mean over layers) are near copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

NEAR: Final = 0.05  # total variation: 5 % of the choices go to other experts
SCALE: Final = 1 << 24  # choices of a layer that each different load is brought to
Counts = npt.NDArray[np.int64]


def variation(load: Counts, other: Counts) -> float:
    """int64[layers, experts] each -> total variation between the shares of experts, mean over layers."""
    shares = [table / np.maximum(table.sum(axis=1, keepdims=True), 1) for table in (load, other)]
    return float(np.abs(shares[0] - shares[1]).sum(axis=1).mean() / 2)


def clusters(loads: Sequence[Counts]) -> list[int]:
    """int64[layers, experts] each -> the number of its cluster: single linkage below NEAR, numbered as they come."""
    kin = list(range(len(loads)))
    for one in range(len(loads)):
        for other in range(one):
            if kin[one] != kin[other] and variation(loads[one], loads[other]) < NEAR:
                kin = [kin[other] if number == kin[one] else number for number in kin]
    names = list(dict.fromkeys(kin))
    return [names.index(number) for number in kin]


def one_each(loads: Sequence[Counts], kin: Sequence[int]) -> Counts:
    """Loads and the cluster of each -> int64[clusters, layers, experts]: the mean of the shares, as counts."""
    rows = []
    for number in dict.fromkeys(kin):
        same = [load for load, of in zip(loads, kin, strict=True) if of == number]
        share = np.mean([load / np.maximum(load.sum(axis=1, keepdims=True), 1) for load in same], axis=0)
        rows.append(np.rint(share * SCALE).astype(np.int64))
    return np.stack(rows)
