"""Copies between host and device, for offloading; on a CPU both ends are memory of the host."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_equal


def cases(plan: PlanSection, world: int, *, operator: str) -> Iterator[Case]:
    """The plan's sizes."""
    del world
    yield from (Case(operator, operator, "", shape(bytes=size)) for size in plan.sizes)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator. The host's memory is pinned where the device is another."""
    pinned = place.target.device.type == "cuda"
    host = torch.randint(0, 255, (case["bytes"],), dtype=torch.uint8, pin_memory=pinned)
    there = torch.zeros(case["bytes"], dtype=torch.uint8, device=place.target.device)
    source, goal = (host, there) if case.operator == "copy_h2d" else (host.to(place.target.device), host.clone())
    if pinned and case.operator == "copy_d2h":
        goal = goal.pin_memory()
    return Prepared(
        partial(goal.copy_, source, non_blocking=True),
        lambda found: expect_equal(found, source),
        bytes=float(case["bytes"]),
    )


H2D = Operator("torch_copy", partial(cases, operator="copy_h2d"), prepare)
D2H = Operator("torch_copy", partial(cases, operator="copy_d2h"), prepare)
