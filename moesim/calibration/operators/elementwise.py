"""Elementwise: a kernel that only moves bytes; it reads one array and writes another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close

DTYPES = ("bf16", "fp16", "fp32")


def cases(plan: PlanSection, world: int) -> Iterator[Case]:
    """The plan's sizes: bytes read and written together."""
    del world
    for size in plan.sizes:
        yield from (Case("elementwise", "elementwise", d, shape(bytes=size)) for d in plan.dtypes if d in DTYPES)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    width = place.empty(0, dtype=case.dtype).element_size()
    values = place.random(max(case["bytes"] // (2 * width), 1), dtype=case.dtype)
    out = torch.empty_like(values)
    return Prepared(
        partial(torch.mul, values, 0.5, out=out),
        lambda found: expect_close(found, values.float() * 0.5),
        bytes=float(case["bytes"]),
    )


OPERATOR = Operator("torch_mul", cases, prepare)
