"""Point to point: rank 0 sends, rank 1 receives; other ranks stand by and are not recorded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_equal


def cases(plan: PlanSection, world: int) -> Iterator[Case]:
    """The plan's sizes."""
    del world
    yield from (Case("point_to_point", "point_to_point", "", shape(bytes=size)) for size in plan.sizes)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    rank, size = place.peers.rank, float(case["bytes"])
    content = torch.arange(case["bytes"]).to(torch.uint8)
    buffer = (content if rank == 0 else torch.zeros_like(content)).to(place.target.device)
    if rank > 1:
        return Prepared(lambda: None, lambda _: None, takes_part=False)
    call = partial(dist.send, buffer, 1) if rank == 0 else partial(dist.recv, buffer, 0)
    return Prepared(call, lambda _: expect_equal(buffer, content), bytes=size)


OPERATOR = Operator("send_recv", cases, prepare, collective=True, least_world=2, backend="")
