"""DeepEP's normal kernels (V1 interface `Buffer`), when the package is installed: CUDA only.

Source: deepseek-ai/DeepEP docs/legacy.md @0297fc8, "Example use in model training or inference prefilling".
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.target import Target
from moesim.calibration.operators.expand import layers
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close
from moesim.calibration.routed import route


def cases(plan: PlanSection, world: int, *, operator: str) -> Iterator[Case]:
    """The plan's layers over the ranks that are here, in bf16."""
    for layer in layers(plan, world):
        columns = {name: layer.columns[name] for name in ("hidden", "topk", "experts", "ep")}
        columns["tokens"] = layer.columns["tokens"] // world
        yield Case(
            f"deepep_{operator}", operator, "bf16", shape(**columns), layer.distribution,
            layer.routed.group_sizes, layer.routed.split_matrix, seed=plan.seed,
        )  # fmt: skip


class Buffers:
    """DeepEP's buffer, one layer's tokens, and what a first dispatch said about them."""

    def __init__(self, case: Case, place: Place) -> None:
        from deep_ep import Buffer

        world, device = place.peers.world, place.target.device
        routed = route(case.distribution, case["experts"], case["topk"], world, case["tokens"], seed=case.seed)
        self.tokens = place.random(case["tokens"], case["hidden"], dtype="bf16")
        self.chosen = torch.from_numpy(routed.expert[place.peers.rank]).to(device)
        self.weight = torch.ones(self.chosen.shape, dtype=torch.float32, device=device)
        configs = [Buffer.get_dispatch_config(world), Buffer.get_combine_config(world)]
        row = case["hidden"] * 2
        nvlink = max(config.get_nvl_buffer_size_hint(row, world) for config in configs)
        rdma = max(config.get_rdma_buffer_size_hint(row, world) for config in configs)
        self.buffer: Any = Buffer(dist.group.WORLD, nvlink, rdma)
        self.layout = self.buffer.get_dispatch_layout(self.chosen, case["experts"])
        self.received, *_, self.handle, _ = self.dispatch()

    def dispatch(self) -> Any:
        """Tokens to their experts; the host waits for the counts, so no graph can hold it."""
        per_rank, per_rdma_rank, per_expert, in_rank, _ = self.layout
        return self.buffer.dispatch(
            self.tokens, topk_idx=self.chosen, topk_weights=self.weight, num_tokens_per_rank=per_rank,
            num_tokens_per_rdma_rank=per_rdma_rank, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert,
        )  # fmt: skip

    def combine(self) -> Any:
        """The received rows back to their tokens, summed."""
        return self.buffer.combine(self.received, self.handle)

    def check(self, _: object) -> None:
        """Unchanged rows come back once from every rank that a token visited."""
        visited = self.layout[3].sum(dim=1, keepdim=True)
        expect_close(self.combine()[0], self.tokens.float() * visited)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    buffers = Buffers(case, place)
    moved = float((len(buffers.tokens) + len(buffers.received)) * case["hidden"] * 2)
    call = buffers.dispatch if case.op == "dispatch" else buffers.combine
    return Prepared(call, buffers.check, bytes=moved)


def refuses(target: Target) -> str:
    """Why it cannot run here."""
    if target.device_class != "cuda":
        return "DeepEP runs on GPUs only"
    if not importlib.util.find_spec("deep_ep"):
        return "deep_ep is not installed"
    try:
        found = importlib.import_module("deep_ep")
    except ImportError as error:
        return f"deep_ep cannot be imported: {error}"
    return "" if hasattr(found, "Buffer") else "this deep_ep has no Buffer, the interface of V1"


def _operator(name: str) -> Operator:
    return Operator(
        f"deepep_normal_{name}", partial(cases, operator=name), prepare, collective=True, least_world=2,
        refuses=refuses, graphs=False, backend="deepep",
    )  # fmt: skip


DISPATCH, COMBINE = _operator("dispatch"), _operator("combine")
