"""All-reduce, all-gather, reduce-scatter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_equal

DTYPES = ("bf16", "fp16", "fp32")
ALL_GATHER_INTO = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.13
REDUCE_SCATTER_OF = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def cases(plan: PlanSection, world: int, *, operator: str) -> Iterator[Case]:
    """The plan's sizes, rounded up to whole values on every rank."""
    for dtype in (name for name in plan.dtypes if name in DTYPES):
        unit = world * (4 if dtype == "fp32" else 2)
        sizes = dict.fromkeys(-(-size // unit) * unit for size in plan.sizes)
        yield from (Case(operator, operator, dtype, shape(bytes=size)) for size in sizes)


def _values(case: Case, place: Place, ranks: int) -> torch.Tensor:
    """A buffer of `bytes` / ranks, filled with this rank's number plus 1."""
    width = place.empty(0, dtype=case.dtype).element_size()
    return place.empty(case["bytes"] // width // ranks, dtype=case.dtype).fill_(place.peers.rank + 1)


def _sum(place: Place) -> int:
    return place.peers.world * (place.peers.world + 1) // 2


def prepare_all_reduce(case: Case, place: Place) -> Prepared:
    """See Operator. In place: the buffer is filled anew for the check only, its values do not matter to the time."""
    buffer = _values(case, place, 1)

    def check(_: object) -> None:
        buffer.fill_(place.peers.rank + 1)
        dist.all_reduce(buffer)
        expect_equal(buffer, torch.full_like(buffer, _sum(place)))
        buffer.zero_()

    return Prepared(partial(dist.all_reduce, buffer), check, bytes=float(case["bytes"]))


def prepare_all_gather(case: Case, place: Place) -> Prepared:
    """See Operator."""
    mine = _values(case, place, place.peers.world)
    out = place.empty(len(mine) * place.peers.world, dtype=case.dtype)
    expected = torch.arange(1, place.peers.world + 1).repeat_interleave(len(mine)).to(out.dtype)
    return Prepared(
        partial(ALL_GATHER_INTO, out, mine), lambda _: expect_equal(out, expected), bytes=float(case["bytes"])
    )


def prepare_reduce_scatter(case: Case, place: Place) -> Prepared:
    """See Operator."""
    whole = _values(case, place, 1)
    out = place.empty(len(whole) // place.peers.world, dtype=case.dtype)
    return Prepared(
        partial(REDUCE_SCATTER_OF, out, whole),
        lambda _: expect_equal(out, torch.full_like(out, _sum(place))),
        bytes=float(case["bytes"]),
    )


def _operator(name: str, prepare: Callable[[Case, Place], Prepared]) -> Operator:
    return Operator(name, partial(cases, operator=name), prepare, collective=True, least_world=2, backend="")


ALL_REDUCE = _operator("all_reduce", prepare_all_reduce)
ALL_GATHER = _operator("all_gather", prepare_all_gather)
REDUCE_SCATTER = _operator("reduce_scatter", prepare_reduce_scatter)
