"""Dense GEMM: the projections of a model's attention, its shared and dense FFN, its router and head."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.expand import models
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close
from moesim.models import MoEModel

DTYPES = ("bf16", "fp16", "fp32")
CHECKED_ROWS = 64  # the reference is computed for the first rows only


def cases(plan: PlanSection, world: int) -> Iterator[Case]:
    """Every weight matrix of the plan's models, once, by tokens."""
    del world
    found = {pair for model in models(plan) for degree in plan.tensor_parallel for pair in _matrices(model, degree)}
    for n, k in sorted(found):
        for m in plan.tokens:
            yield from (Case("gemm", "gemm", d, shape(m=m, n=n, k=k)) for d in plan.dtypes if d in DTYPES)


def _matrices(model: MoEModel, degree: int) -> Iterator[tuple[int, int]]:
    if model.attention.num_heads % degree:
        return
    gemms = (*model.mixer_gemms(degree), *model.shared_gemms(), *model.dense_gemms(), model.router_gemm())
    yield from ((gemm.n, gemm.k) for gemm in (*gemms, model.head_gemm(degree)))


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    m, n, k = case["m"], case["n"], case["k"]
    rows, weight = place.random(m, k, dtype=case.dtype), place.random(n, k, dtype=case.dtype).mul_(k**-0.5)
    head = slice(0, CHECKED_ROWS)
    return Prepared(
        partial(torch.nn.functional.linear, rows, weight),
        lambda found: expect_close(found[head], rows[head].float() @ weight.float().T),
        2.0 * m * n * k,
        float((m * k + n * k + m * n) * rows.element_size()),
    )


OPERATOR = Operator("torch_linear", cases, prepare)
