"""All-to-all with an explicit, uneven split matrix: rows of tokens to the ranks of their experts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.expand import layers
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_equal

WIDTH = {"bf16": 2, "fp16": 2, "fp32": 4}  # bytes of a value


def cases(plan: PlanSection, world: int) -> Iterator[Case]:
    """The dispatch of the plan's models and routings over the ranks that are here."""
    for layer in layers(plan, world):
        matrix = layer.routed.split_matrix
        hidden = layer.columns["hidden"]
        for dtype in (name for name in plan.dtypes if name in WIDTH):
            size = max(sum(source) for source in matrix) * hidden * WIDTH[dtype]
            columns = shape(hidden=hidden, bytes=size)
            yield Case("all_to_all", "all_to_all", dtype, columns, layer.distribution, split_matrix=matrix)


class Exchange:
    """Buffers and splits of one rank: rows to each rank out, rows from each rank in."""

    def __init__(self, case: Case, place: Place) -> None:
        me, matrix = place.peers.rank, case.split_matrix
        self.out_splits = list(matrix[me])
        self.in_splits = [source[me] for source in matrix]
        self.sent = place.empty(sum(self.out_splits), case["hidden"], dtype=case.dtype)
        rows = [torch.full((n,), me * 16 + to) for to, n in enumerate(self.out_splits)]
        self.sent.copy_(torch.cat(rows).unsqueeze(1).expand_as(self.sent))
        self.received = place.empty(sum(self.in_splits), case["hidden"], dtype=case.dtype)
        self._me = me

    def __call__(self, *, wait: bool = True) -> object:
        """Exchange; the received rows, or a handle to wait for."""
        work = dist.all_to_all_single(self.received, self.sent, self.in_splits, self.out_splits, async_op=not wait)
        return self.received if wait else work

    def check(self, found: torch.Tensor) -> None:
        """Every row says who sent it to whom."""
        rows = [torch.full((n,), source * 16 + self._me) for source, n in enumerate(self.in_splits)]
        expect_equal(found[:, 0].long(), torch.cat(rows))


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    exchange = Exchange(case, place)
    moved = float((len(exchange.sent) + len(exchange.received)) * case["hidden"] * exchange.sent.element_size())
    return Prepared(partial(exchange, wait=True), exchange.check, bytes=moved)


OPERATOR = Operator("all_to_all_single", cases, prepare, collective=True, least_world=2, backend="")
