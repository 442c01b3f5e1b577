"""Rings of consecutive ranks: tokens of a tensor group, and rows for those who share the width of an expert."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.engine import Pool
from moesim.network import Coflow, Fabric, Group, algorithms, groups, of_engine
from moesim.network.copies import Level
from moesim.step.batch import Batch
from moesim.step.ops import ACTIVATION_BYTES
from moesim.step.plan import StepPlan
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]
LOGITS = "logits_all_gather"
KEPT = 4096  # rings by what their lanes have


def ring(fabric: Fabric, group: Group, op: str, width: int, own: Int64s) -> Coflow:
    """own int64[lanes] bytes -> `op` in groups of `width` consecutive lanes, as the library or the engine does it."""
    lanes = groups(len(group.devices), width)
    candidates = of_engine(fabric.engine, op, group, lanes, own) if fabric.engine else ()
    return fabric.fastest(candidates or algorithms(op, group, lanes, own), group)[1]


def op_of(name: str) -> str:
    """The collective of a task that may say what it is of: all_reduce of embedding_all_reduce."""
    return "_".join(name.split("_")[-2:])


def tensor_bytes(plan: StepPlan, name: str, batch: Batch) -> Int64s:
    """int64[lanes]: what each rank brings to the ring `name` of its tensor group: its own tokens between attention and
    FFN, or its part of the logits of all tokens of the group that are emitted.
    """
    if name == LOGITS:
        return plan.ops.group_head_rows(batch) * (ACTIVATION_BYTES * plan.ops.spread.head_gemm().n)
    return batch.tokens_of_rank * (ACTIVATION_BYTES * plan.model.hidden_size)


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

    def of(self, name: str, own: Int64s) -> Ring:
        """own int64[R] bytes."""
        key = (op_of(name), own.tobytes())
        if key not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            coflow = ring(self._fabric, self._group, op_of(name), self._width, own)
            self._kept[key] = Ring(self._pool.number(coflow), coflow.bytes, int(to_ps(coflow.alpha)))
        return self._kept[key]
