"""From stages to passes: a cost form per stage, fitted on some routings, adds up to a pass over another.

Every stage has moesim's own form with norm 1, t = launch + flops / F + bytes / B: experts on their actual group sizes
(weights are read for experts that have rows only), exchanges as alpha-beta in the bytes that a rank sends and receives
by an uneven split matrix, the rest by the bytes it moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from moesim.calibration.measure.case import Case
from moesim.calibration.truth.rank import KERNELS, Kernel, Name, Samples
from moesim.calibration.truth.setting import Routing, Setting
from moesim.costs.form import Form
from moesim.costs.shapes import Demand

QUANTILE = 0.1
WIDTH = 4.0  # bytes of fp32
STAGES = ("permute", "dispatch", "sort", "experts", "unsort", "combine", "merge")
Costs = dict[tuple[str, Kernel], Form]


def demand(stage: str, case: Case, rank: int) -> tuple[float, float]:
    """FLOPs and bytes of a stage on one rank."""
    row = case["hidden"] * WIDTH
    sent, received = sum(case.split_matrix[rank]), sum(source[rank] for source in case.split_matrix)
    if stage == "experts":
        sizes, weights = case.sizes(rank), case["matrices"] * case["hidden"] * case["inter"]
        active = sum(size > 0 for size in sizes)
        return 2.0 * weights * sum(sizes), active * weights * WIDTH + 2.0 * sum(sizes) * row
    moved = {
        "permute": 2.0 * sent, "sort": 2.0 * received, "unsort": 2.0 * received,
        "merge": float(sent + case["tokens"] // case["ep"]),
    }  # fmt: skip
    return 0.0, row * moved.get(stage, float(sent + received))


def fit(setting: Setting, ranks: Sequence[Samples]) -> Costs:
    """One form per stage and kernel over all ranks and fitted routings."""
    return {
        (stage, kernel): _form(
            [demand(stage, setting.case(routing), one.rank) for routing in setting.fitted for one in ranks],
            [low(one.seconds[Name(routing, kernel, stage)]) for routing in setting.fitted for one in ranks],
        )
        for stage in STAGES
        for kernel in KERNELS
    }


def low(seconds: Sequence[float]) -> float:
    """The 10 % quantile: what the work takes when little disturbs it."""
    return float(np.quantile(seconds, QUANTILE))


def _form(demands: list[tuple[float, float]], seconds: list[float]) -> Form:
    """Least squares of the relative error with coefficients that are not negative."""
    shapes, times = np.array(demands), np.array(seconds)
    columns = np.column_stack([np.ones(len(times)), shapes])
    scale = columns.max(axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(columns / scale / times[:, None], np.ones(len(times)))
    launch, per_flop, per_byte = (float(value) for value in found / scale)
    return Form(launch, 1 / max(per_flop, 1e-30), 1 / max(per_byte, 1e-30), 1.0)


def predict(costs: Costs, setting: Setting, routing: Routing, kernel: Kernel, rank: int) -> float:
    """CPU seconds of a pass on one rank."""
    case = setting.case(routing)
    total = 0.0
    for stage in STAGES:
        flops, moved = demand(stage, case, rank)
        asked = Demand(np.asarray(flops), np.asarray(moved), np.asarray(flops), (), ())
        total += float(costs[stage, kernel].seconds(asked))
    return total
