"""The activation between the two GEMMs of experts, as engines run it: one kernel that reads the wide rows and writes
those of `inter`. torch.compile fuses it, which needs Triton: CUDA only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.target import Target
from moesim.calibration.operators.expand import layers
from moesim.calibration.operators.library import lacks
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close

WIDTH = {"bf16": 2, "fp16": 2}  # bytes of a value


def cases(plan: PlanSection, world: int) -> Iterator[Case]:
    """The rows of all experts of the plan's layers, in bytes read and written."""
    del world
    for layer in layers(plan, 1):
        columns = {name: layer.columns[name] for name in ("inter", "matrices", "tokens", "topk")}
        rows, width = columns["tokens"] * columns["topk"], columns["matrices"] * columns["inter"]
        for dtype in (name for name in plan.dtypes if name in WIDTH):
            yield Case("activation", "activation", dtype, shape(bytes=rows * width * WIDTH[dtype], **columns))


def activate(wide: torch.Tensor, matrices: int) -> torch.Tensor:
    """[rows, (matrices - 1) inter] -> [rows, inter]: SiLU, of the gate where there is one times the value."""
    if matrices == 3:
        gate, value = wide.chunk(2, dim=-1)
        return functional.silu(gate) * value
    return functional.silu(wide)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator. The compiler takes one kernel for all sizes, as that of an engine is."""
    rows, matrices = case["tokens"] * case["topk"], case["matrices"]
    wide = place.random(rows, (matrices - 1) * case["inter"], dtype=case.dtype)
    fused: Any = torch.compile(activate, dynamic=True)
    return Prepared(
        partial(fused, wide, matrices),
        lambda found: expect_close(found, activate(wide.float(), matrices)),
        bytes=float(case["bytes"]),
    )


def refuses(target: Target) -> str:
    """Why it cannot run here."""
    return lacks("triton", "jit", target)


OPERATOR = Operator("torch_compile_silu", cases, prepare, refuses=refuses, module="triton")
