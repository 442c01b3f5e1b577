"""DeepEP's normal kernels (V1 interface `Buffer`), when the package is installed: CUDA only. Rows go out in bf16 and in
fp8 with a scale for 128 values; what comes back is bf16.

Source: deepseek-ai/DeepEP docs/legacy.md @0297fc8, "Example use in model training or inference prefilling", and
deep_ep/buffer.py @04b06f7.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.target import Target
from moesim.calibration.operators.expand import layers
from moesim.calibration.operators.library import lacks
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close
from moesim.calibration.routed import route
from moesim.models import value_bytes

BLOCK: Final = 128  # values that share a scale
LARGEST: Final = 448.0  # of float8_e4m3fn
FP8_LIMIT: Final = 0.07  # of the largest value: three bits of mantissa round by up to 1/16
ROW: Final = {dtype: value_bytes(dtype) for dtype in ("bf16", "fp8")}


def cases(plan: PlanSection, world: int, *, operator: str, prefix: str, most: int = 0) -> Iterator[Case]:
    """The plan's layers over the ranks that are here, of at most so many tokens (0: any); combine in bf16."""
    dtypes = [name for name in ROW if name in plan.dtypes] if operator == "dispatch" else ["bf16"]
    for layer in layers(plan, world):
        columns = {name: layer.columns[name] for name in ("hidden", "topk", "experts", "ep")}
        columns["tokens"] = layer.columns["tokens"] // world
        if columns["tokens"] > (most or columns["tokens"]):
            continue
        for dtype in dtypes:
            yield Case(
                f"{prefix}_{operator}", operator, dtype, shape(**columns), layer.distribution,
                layer.routed.group_sizes, layer.routed.split_matrix, seed=plan.seed,
            )  # fmt: skip


class Tokens:
    """Tokens of this rank, bf16 [T, hidden], and the experts that each takes, int64 [T, topk], with weights of 1."""

    def __init__(self, case: Case, place: Place) -> None:
        world, device = place.peers.world, place.target.device
        routed = route(case.distribution, case["experts"], case["topk"], world, case["tokens"], seed=case.seed)
        self.rows = place.random(case["tokens"], case["hidden"], dtype="bf16")
        self.chosen = torch.from_numpy(routed.expert[place.peers.rank]).to(device)
        self.weight = torch.ones(self.chosen.shape, dtype=torch.float32, device=device)


def in_blocks(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, hidden] -> fp8 [n, hidden] and float32 [n, hidden / BLOCK]: value = fp8 x scale."""
    blocks = rows.float().unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(dim=-1).clamp(min=1e-4) / LARGEST
    return (blocks / scale.unsqueeze(-1)).flatten(-2).to(torch.float8_e4m3fn), scale


def widened(rows: Any) -> torch.Tensor:
    """What a dispatch hands over -> bf16: bf16 as it is, or the inverse of `in_blocks`."""
    if not isinstance(rows, tuple):
        return torch.as_tensor(rows)
    values, scale = rows
    blocks: torch.Tensor = values.float().unflatten(-1, (-1, BLOCK)) * scale.unsqueeze(-1)
    return blocks.flatten(-2).to(torch.bfloat16)


class Buffers:
    """DeepEP's buffer, one layer's tokens, and what a first dispatch said about them."""

    def __init__(self, case: Case, place: Place) -> None:
        from deep_ep import Buffer

        world = place.peers.world
        self.tokens = Tokens(case, place)
        self.sent: Any = in_blocks(self.tokens.rows) if case.dtype == "fp8" else self.tokens.rows
        configs = [Buffer.get_dispatch_config(world), Buffer.get_combine_config(world)]
        row = case["hidden"] * 2
        nvlink = max(config.get_nvl_buffer_size_hint(row, world) for config in configs)
        rdma = max(config.get_rdma_buffer_size_hint(row, world) for config in configs)
        self.buffer: Any = Buffer(dist.group.WORLD, nvlink, rdma)
        self.sms = int(Buffer.num_sms)
        self.layout = self.buffer.get_dispatch_layout(self.tokens.chosen, case["experts"])
        received, *_, self.handle, _ = self.dispatch()
        self.received = widened(received)

    def dispatch(self) -> Any:
        """Tokens to their experts; the host waits for the counts, so no graph can hold it."""
        per_rank, per_rdma_rank, per_expert, in_rank, _ = self.layout
        return self.buffer.dispatch(
            self.sent, topk_idx=self.tokens.chosen, topk_weights=self.tokens.weight, num_tokens_per_rank=per_rank,
            num_tokens_per_rdma_rank=per_rdma_rank, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert,
        )  # fmt: skip

    def combine(self) -> Any:
        """The received rows back to their tokens, summed."""
        return self.buffer.combine(self.received, self.handle)

    def check(self, _: object) -> None:
        """Unchanged rows come back once from every rank that a token visited."""
        visited = self.layout[3].sum(dim=1, keepdim=True)
        limit = FP8_LIMIT if isinstance(self.sent, tuple) else 0.0
        expect_close(self.combine()[0], self.tokens.rows.float() * visited, limit=limit)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    buffers = Buffers(case, place)
    moved = float((len(buffers.tokens.rows) + len(buffers.received)) * case["hidden"] * ROW[case.dtype])
    call = buffers.dispatch if case.op == "dispatch" else buffers.combine
    return Prepared(call, buffers.check, bytes=moved, columns={"sms": buffers.sms})


def refuses(target: Target) -> str:
    """Why it cannot run here."""
    return lacks("deep_ep", "Buffer", target)


def _operator(name: str) -> Operator:
    return Operator(
        "deepep_normal", partial(cases, operator=name, prefix="deepep"), prepare, collective=True, least_world=2,
        refuses=refuses, graphs=False, backend="deepep", module="deep_ep", waits=True,
    )  # fmt: skip


DISPATCH, COMBINE = _operator("dispatch"), _operator("combine")
