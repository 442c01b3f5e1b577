"""What experts take in training with the rows of many ranks at once: GEMMs priced once for each count of rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim.schedules import Way
from moesim.step import CostLog, StepPlan
from moesim.step.work import Work
from moesim.training.slots import GEMM
from moesim.units import to_ps

Int64s = npt.NDArray[np.int64]


class ExpertWork:
    """Of a plan whose ranks hold `slots` experts each. As step/makers/experts.py adds it up, to the tick."""

    def __init__(self, plan: StepPlan, slots: int) -> None:
        self._ops, self._gradient_bytes, self._received = plan.ops, plan.gradient_bytes, plan.received_bytes
        self._silent = replace(plan.ops, log=CostLog())  # counts that are priced ahead are none that were asked for
        self._parameters = slots * plan.ops.spread.expert_parameters
        self._table, self._outside = Work(), np.zeros(0, dtype=np.bool_)

    def ps(self, by_rank: Int64s, slowdown: float) -> dict[tuple[Way, bool], Int64s]:
        """int64[n, R, slots] rows -> int64[n, R] ps by way and whether beside transfers, on whose account
        GEMMs take `slowdown` times as long.
        """
        rows = by_rank.reshape(-1, by_rank.shape[2])
        plain, moved = self._ops.trained_experts(self._gemms(rows), rows), self._ops.sorted_rows(rows, self._received)
        added = self._ops.accumulate_gradients(len(rows), self._parameters, self._gradient_bytes)
        beside = {Way.FORWARD: moved, Way.BACKWARD: moved + added, Way.BACKWARD_DATA: moved, Way.BACKWARD_WEIGHT: added}
        works = {
            way: (plain if way == Way.FORWARD else self._ops.backward("experts", plain, way)) + more
            for way, more in beside.items()
        }
        return {
            (way, shares): _ticks(work, slowdown if shares else 1.0).reshape(by_rank.shape[:2])
            for way, work in works.items()
            for shares in (False, True)
        }

    def _gemms(self, rows: Int64s) -> Work:
        """int64[n, slots] -> Work of the same shape."""
        if (most := int(rows.max(initial=0))) >= len(self._outside):
            self._learn(np.arange(2 * most + 1))
        self._ops.log.count(GEMM, rows.size, int(np.count_nonzero(self._outside[rows])))
        return Work({family: seconds[rows] for family, seconds in self._table.seconds.items()})

    def _learn(self, counts: Int64s) -> None:
        ops = self._silent
        self._table = ops.expert_gemms(counts)
        gemms, dtype = ops.spread.expert_gemms(), ops.precision.experts
        outside = [np.broadcast_to(ops.costs.gemm(counts, one.n, one.k, dtype).outside, counts.shape) for one in gemms]
        self._outside = np.any(outside, axis=0)


def _ticks(work: Work, slowdown: float) -> Int64s:
    total = np.asarray(work.total)
    return to_ps(total + work.seconds[GEMM] * (slowdown - 1) if slowdown > 1 else total)
