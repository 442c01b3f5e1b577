"""From a plan to shapes: models, their parallel splits, and the tokens that real routing sends to an expert."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.routed import Routed, route
from moesim.errors import BadInput
from moesim.models import MoEModel, load_routed


@lru_cache(maxsize=64)
def model_of(name: str) -> MoEModel:
    """A shipped model or a config.json."""
    return load_routed(name)


def models(plan: PlanSection) -> Iterator[MoEModel]:
    """The plan's models."""
    yield from (model_of(name) for name in plan.models)


class Layer(NamedTuple):
    """A layer to measure: expert columns of records, and who goes where; `world` ranks share the experts."""

    columns: dict[str, int]
    distribution: str
    routed: Routed


def layers(plan: PlanSection, world: int) -> Iterator[Layer]:
    """Every model x tokens of a rank x routing, over `world` ranks; what cannot be carried over is left out."""
    for model in models(plan):
        if model.num_experts % world:
            continue
        for tokens in plan.tokens:
            for distribution in plan.routing:
                try:
                    routed = route(distribution, model.num_experts, model.top_k, world, tokens, seed=plan.seed)
                except BadInput:
                    if not distribution.startswith("trace:"):
                        raise
                    continue
                yield Layer(_columns(model, tokens * world, world), distribution, routed)


def _columns(model: MoEModel, tokens: int, world: int) -> dict[str, int]:
    return {
        "tokens": tokens, "hidden": model.hidden_size, "inter": model.expert_intermediate, "topk": model.top_k,
        "experts": model.num_experts, "matrices": model.expert_matrices, "ep": world, "tp": 1,
    }  # fmt: skip


def expert_cases(plan: PlanSection, world: int, *, operator: str, dtypes: tuple[str, ...]) -> Iterator[Case]:
    """Grouped GEMMs: alone, for each degree of expert parallelism, its hottest and its median rank; each of an expert's
    two on its own. What lies between them, engines run as one kernel: see `activation`.
    """
    del world
    for degree in plan.expert_parallel:
        for layer in layers(plan, degree):
            chosen = {_rank_at(layer.routed, quantile) for quantile in (0.5, 1.0)}
            for rank in sorted(rank for rank in chosen if any(layer.routed.group_sizes[rank])):
                sizes = (layer.routed.group_sizes[rank],)
                for columns in bare_gemms(layer.columns):
                    for dtype in (name for name in plan.dtypes if name in dtypes):
                        yield Case(operator, "grouped_gemm", dtype, shape(**columns), layer.distribution, sizes,
                                   seed=plan.seed)  # fmt: skip


def bare_gemms(columns: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Columns of experts -> those of their GEMM into the wide space, gate and value at once, and of the one back."""
    hidden, inter, wide = columns["hidden"], columns["inter"], max(columns["matrices"] - 1, 1) * columns["inter"]
    return columns | {"matrices": 1, "inter": wide}, columns | {"matrices": 1, "hidden": inter, "inter": hidden}


def _rank_at(routed: Routed, quantile: float) -> int:
    """The rank whose rows are at that quantile of the ranks."""
    order = np.argsort([sum(sizes) for sizes in routed.group_sizes], kind="stable")
    return int(order[round(quantile * (len(order) - 1))])
