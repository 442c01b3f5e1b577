"""Grouped GEMM: the experts of one rank in torch's grouped kernel."""

from __future__ import annotations

from functools import partial

from moesim.calibration.measure.case import Case
from moesim.calibration.operators.expand import expert_cases
from moesim.calibration.operators.ffn import Experts
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close

DTYPES = ("bf16", "fp16", "fp32")


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    experts = Experts.of(case, place, dtype=case.dtype, sizes=case.sizes(place.peers.rank))
    rows = place.random(sum(experts.sizes), case["hidden"], dtype=case.dtype)
    return Prepared(
        partial(experts.grouped, rows),
        lambda found: expect_close(found, experts.reference(rows)),
        experts.flops(),
        experts.bytes(rows.element_size()),
    )


OPERATOR = Operator("torch_grouped_mm_bare", partial(expert_cases, operator="grouped_gemm", dtypes=DTYPES), prepare)
