"""Copies between host and device, for offloading, from and to pinned memory and pageable; on a CPU both ends are memory
of the host, and pageable.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_equal

PINNED: Final = "torch_copy_pinned"
PAGEABLE: Final = "torch_copy_pageable"


def cases(plan: PlanSection, world: int, *, operator: str) -> Iterator[Case]:
    """The plan's sizes, by kind of the host's memory."""
    del world
    for kernel in (PINNED, PAGEABLE) if plan.device == "cuda" else (PAGEABLE,):
        yield from (Case(operator, operator, "", shape(bytes=size), kernel=kernel) for size in plan.sizes)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator. A copy from or to pageable memory goes through a pinned buffer of the driver's, piece by piece."""
    pinned = case.kernel == PINNED
    host = torch.randint(0, 255, (case["bytes"],), dtype=torch.uint8, pin_memory=pinned)
    there = torch.zeros(case["bytes"], dtype=torch.uint8, device=place.target.device)
    source, goal = host, there
    if case.operator == "copy_d2h":
        there.copy_(host)
        source, goal = there, torch.zeros(case["bytes"], dtype=torch.uint8, pin_memory=pinned)
    return Prepared(
        partial(goal.copy_, source, non_blocking=True),
        lambda found: expect_equal(found, source),
        bytes=float(case["bytes"]),
    )


H2D = Operator("torch_copy", partial(cases, operator="copy_h2d"), prepare, graphs=False, waits=True)
D2H = Operator("torch_copy", partial(cases, operator="copy_d2h"), prepare, graphs=False, waits=True)
