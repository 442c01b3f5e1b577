"""A grouped GEMM while an all-to-all runs beside it: what communication kernels take from compute.

The all-to-all of the case runs asynchronously (NCCL on its own stream, gloo in its own threads) and the experts of the
same layer compute meanwhile; compared with both alone, the time says how much they disturb each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators import grouped_gemm
from moesim.calibration.operators.all_to_all import WIDTH, Exchange
from moesim.calibration.operators.expand import layers
from moesim.calibration.operators.operator import Operator, Place, Prepared


def cases(plan: PlanSection, world: int) -> Iterator[Case]:
    """Dispatch and experts of the plan's layers over the ranks that are here."""
    for layer in layers(plan, world):
        matrix = layer.routed.split_matrix
        for dtype in (name for name in plan.dtypes if name in WIDTH):
            size = max(sum(source) for source in matrix) * layer.columns["hidden"] * WIDTH[dtype]
            columns = shape(**layer.columns, bytes=size)
            yield Case(
                "overlap", "overlap", dtype, columns, layer.distribution, layer.routed.group_sizes, matrix
            )  # fmt: skip


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    exchange = Exchange(case, place)
    experts = grouped_gemm.prepare(replace(case, op="grouped_gemm"), place)

    def call() -> tuple[torch.Tensor, Any]:
        work: Any = exchange(wait=False)
        found = experts.call()
        work.wait()
        return exchange.received, found

    def check(found: tuple[torch.Tensor, Any]) -> None:
        exchange.check(found[0])
        experts.check(found[1])

    return Prepared(call, check, experts.flops, experts.bytes)


OPERATOR = Operator("grouped_mm_beside_all_to_all", cases, prepare, collective=True, least_world=2)
