"""Grouped GEMM in fp8 with a scale per row (e4m3), where the GPU has it: CUDA only.

Source: torch.nn.functional.scaled_grouped_mm in PyTorch's documentation: a is row-major, b column-major, row-wise
scales are float32 [rows] and [G, columns].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.probe import refusal
from moesim.calibration.measure.target import Target
from moesim.calibration.operators.expand import expert_cases
from moesim.calibration.operators.ffn import Experts
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close

scaled_grouped_mm = getattr(functional, "scaled_grouped_mm", None)  # since torch 2.10
LARGEST = 448.0  # of float8_e4m3fn


def quantised(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[..., K] -> fp8 [..., K] and float32 [...] scales: value = fp8 x scale."""
    scale = values.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (values.float() / scale).to(torch.float8_e4m3fn), scale.squeeze(-1)


@dataclass(frozen=True)
class Fp8Experts:
    """Weights [G, inter, hidden] of one bare GEMM of each expert, quantised; ends int32[G] of their rows."""

    ends: torch.Tensor
    weight: torch.Tensor
    weight_scale: torch.Tensor

    def __call__(self, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """fp8 [rows, hidden] and float32 [rows] -> bf16 [rows, inter]."""
        assert scaled_grouped_mm is not None  # or `refuses` had said so
        by_row = functional.ScalingType.RowWise
        return scaled_grouped_mm(
            rows, self.weight.transpose(-2, -1), scale, by_row, self.weight_scale, by_row, offs=self.ends,
            output_dtype=torch.bfloat16, use_fast_accum=True,
        )  # fmt: skip


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator. The reference multiplies what is left after quantising rows and weights."""
    experts = Experts.of(case, place, dtype="bf16", sizes=case.sizes(place.peers.rank))
    kernel = Fp8Experts(experts.ends, *quantised(experts.up))
    rows, scale = quantised(place.random(sum(experts.sizes), case["hidden"], dtype="bf16"))

    def check(found: torch.Tensor) -> None:
        exact = kernel.weight.float() * kernel.weight_scale.unsqueeze(-1)
        wide = Experts(exact, experts.down, 1, experts.sizes, experts.ends)
        expect_close(found, wide.loop(rows.float() * scale.unsqueeze(-1)))

    weights = experts.bytes(0) / experts.up.element_size()
    written = len(rows) * experts.out_width * torch.bfloat16.itemsize
    return Prepared(partial(kernel, rows, scale), check, experts.flops(), weights + rows.numel() + written)


TINY = Case(
    "grouped_gemm_fp8", "grouped_gemm", "fp8",
    shape(tokens=32, hidden=256, inter=256, topk=1, experts=2, matrices=1, ep=1, tp=1), "balanced", ((16, 16),),
)  # fmt: skip


def refuses(target: Target) -> str:
    """Why this device cannot: by trying."""
    if not scaled_grouped_mm:
        return "torch has no scaled_grouped_mm: 2.10 or newer does"
    return refusal(TINY, target.device_class)


OPERATOR = Operator(
    "torch_scaled_grouped_mm_bare",
    partial(expert_cases, operator="grouped_gemm_fp8", dtypes=("fp8",)),
    prepare,
    refuses=refuses,
)
