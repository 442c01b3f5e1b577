"""The baseline of grouped GEMM: one GEMM after another, expert by expert."""

from __future__ import annotations

from functools import partial

from moesim.calibration.measure.case import Case
from moesim.calibration.operators.expand import expert_cases
from moesim.calibration.operators.ffn import Experts
from moesim.calibration.operators.grouped_gemm import DTYPES
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    experts = Experts.of(case, place, dtype=case.dtype, sizes=case.sizes(place.peers.rank))
    rows = place.random(sum(experts.sizes), case["hidden"], dtype=case.dtype)
    return Prepared(
        partial(experts.loop, rows),
        lambda found: expect_close(found, experts.reference(rows)),
        experts.flops(),
        experts.bytes(rows.element_size()),
    )


OPERATOR = Operator("torch_loop_bare", partial(expert_cases, operator="grouped_gemm_loop", dtypes=DTYPES), prepare)
