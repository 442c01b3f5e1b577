"""Operators that can be measured: one file each, and one line here."""

from __future__ import annotations

from typing import Final

from moesim.calibration.operators import (
    activation,
    all_to_all,
    attention,
    collectives,
    copies,
    deepep,
    deepep_low_latency,
    elementwise,
    gemm,
    grouped_gemm,
    grouped_gemm_fp8,
    grouped_gemm_loop,
    mla_libraries,
    moe_layer,
    overlap,
    permute,
    point_to_point,
)
from moesim.calibration.operators.operator import Operator
from moesim.errors import pick

OPERATORS: Final[dict[str, Operator]] = {
    "grouped_gemm": grouped_gemm.OPERATOR,
    "grouped_gemm_loop": grouped_gemm_loop.OPERATOR,
    "grouped_gemm_fp8": grouped_gemm_fp8.OPERATOR,
    "gemm": gemm.OPERATOR,
    "attention_prefill": attention.PREFILL,
    "attention_decode": attention.DECODE,
    "mla_prefill": attention.MLA_PREFILL,
    "mla_decode": attention.MLA_DECODE,
    "mla_decode_flashmla": mla_libraries.FLASH_MLA,
    "mla_decode_flashinfer": mla_libraries.FLASHINFER,
    "mla_decode_fa3": mla_libraries.FA3,
    "mla_decode_trtllm_fp8": mla_libraries.FP8,
    "permute": permute.PERMUTE,
    "unpermute": permute.UNPERMUTE,
    "activation": activation.OPERATOR,
    "elementwise": elementwise.OPERATOR,
    "copy_h2d": copies.H2D,
    "copy_d2h": copies.D2H,
    "all_to_all": all_to_all.OPERATOR,
    "all_reduce": collectives.ALL_REDUCE,
    "all_gather": collectives.ALL_GATHER,
    "reduce_scatter": collectives.REDUCE_SCATTER,
    "point_to_point": point_to_point.OPERATOR,
    "deepep_dispatch": deepep.DISPATCH,
    "deepep_combine": deepep.COMBINE,
    "deepep_low_latency_dispatch": deepep_low_latency.DISPATCH,
    "deepep_low_latency_combine": deepep_low_latency.COMBINE,
    "overlap": overlap.OPERATOR,
    "moe_layer": moe_layer.OPERATOR,
}


def find_operator(name: str, *, where: str = "") -> Operator:
    """The operator of that name. Raises BadInput with the known ones."""
    return pick("operator", name, OPERATORS, where=where)
