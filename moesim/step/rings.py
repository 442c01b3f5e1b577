"""Rings of consecutive ranks: tokens of a tensor group, and rows for those who share the width of an expert."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine import Pool
from moesim.models import MoEModel
from moesim.network import Coflow, Fabric, Group, algorithms, groups
from moesim.network.copies import Level
from moesim.step.ops import ACTIVATION_BYTES
from moesim.step.plan import StepPlan
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
KEPT = 4096  # rings by what their lanes have


def ring(fabric: Fabric, group: Group, op: str, width: int, own: Int64s) -> Coflow:
    """own int64[lanes] bytes -> `op` in groups of `width` consecutive lanes, as the library would do it."""
    candidates = algorithms(op, group, groups(len(group.devices), width), own)
    return fabric.fastest(candidates, group)[1]


def residual_bytes(model: MoEModel) -> int:
    """Of one token between attention and FFN."""
    return ACTIVATION_BYTES * model.hidden_size


def shared_copies(plan: StepPlan) -> Level | None:
    """Which of the rows that arrive at a rank it hands to those that share the width of its experts; None where none
    are: experts are whole, every rank has all tokens, or all rows.
    """
    spread, algorithm = plan.ops.spread, plan.dispatch.algorithm
    exchanges = plan.layout.expert_parallel > 1
    if spread.expert_tensor == 1 or spread.residual == "replicated" or (exchanges and algorithm.gathers):
        return None
    return "devices" if not exchanges or algorithm.deduplicates != "none" else "pairs"


class Ring(NamedTuple):
    """pattern: number of its pair list in a Pool; size int64[F] bytes; alpha ps."""

    pattern: int
    size: Int64s
    alpha: int


class Rings:
    """Rings of one width on one island, kept by what their lanes have."""

    def __init__(self, fabric: Fabric, group: Group, width: int, pool: Pool) -> None:
        self._fabric, self._group, self._width, self._pool = fabric, group, width, pool
        self._kept: dict[tuple[str, bytes], Ring] = {}

    def of(self, op: str, own: Int64s) -> Ring:
        """own int64[R] bytes."""
        key = (op, own.tobytes())
        if key not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            coflow = ring(self._fabric, self._group, op, self._width, own)
            self._kept[key] = Ring(self._pool.number(coflow), coflow.bytes, int(to_ps(coflow.alpha)))
        return self._kept[key]
