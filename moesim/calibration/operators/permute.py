"""Permute and unpermute: rows sorted by expert, and back in order, weighted and summed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.expand import layers
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close, expect_equal
from moesim.calibration.routed import route

DTYPES = ("bf16", "fp16", "fp32")


def cases(plan: PlanSection, world: int, *, operator: str) -> Iterator[Case]:
    """The tokens of one rank with all experts, by routing."""
    del world
    for layer in layers(plan, 1):
        columns = {name: layer.columns[name] for name in ("tokens", "hidden", "topk", "experts")}
        for dtype in (name for name in plan.dtypes if name in DTYPES):
            yield Case(
                operator,
                operator,
                dtype,
                shape(**columns),
                layer.distribution,
                layer.routed.group_sizes,
                seed=plan.seed,
            )


def gather(rows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """[n, hidden], int64[m] -> [m, hidden]."""
    return rows.index_select(0, order)


def merge(rows: torch.Tensor, place: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[n, hidden], int64[T, k], [T, k] -> [T, hidden]: each token's rows, weighted and summed."""
    picked = rows.index_select(0, place.reshape(-1)).view(*place.shape, rows.shape[1])
    return torch.bmm(weight.unsqueeze(1), picked).squeeze(1)


def _order(case: Case, place: Place) -> torch.Tensor:
    """int64[T k]: choices, numbered token by token, sorted by expert."""
    routed = route(case.distribution, case["experts"], case["topk"], 1, case["tokens"], seed=case.seed)
    flat = torch.from_numpy(routed.expert.reshape(-1))
    return flat.argsort(stable=True).to(place.target.device)


def prepare_permute(case: Case, place: Place) -> Prepared:
    """See Operator."""
    tokens = place.random(case["tokens"], case["hidden"], dtype=case.dtype)
    source = _order(case, place) // case["topk"]
    moved = tokens.element_size() * case["hidden"] * 2.0 * len(source)
    return Prepared(
        partial(gather, tokens, source), lambda found: expect_equal(found, tokens[source]), bytes=moved
    )  # fmt: skip


def prepare_unpermute(case: Case, place: Place) -> Prepared:
    """See Operator."""
    order = _order(case, place)
    spot = torch.empty_like(order)
    spot[order] = torch.arange(len(order), device=order.device)
    spot = spot.view(case["tokens"], case["topk"])
    rows = place.random(len(order), case["hidden"], dtype=case.dtype)
    weight = place.random(case["tokens"], case["topk"], dtype=case.dtype)
    moved = rows.element_size() * case["hidden"] * float(len(order) + case["tokens"])
    return Prepared(
        partial(merge, rows, spot, weight),
        lambda found: expect_close(found, (rows[spot].float() * weight.float().unsqueeze(-1)).sum(1)),
        bytes=moved,
    )


PERMUTE = Operator("torch_index_select", partial(cases, operator="permute"), prepare_permute)
UNPERMUTE = Operator("torch_index_bmm", partial(cases, operator="unpermute"), prepare_unpermute)
