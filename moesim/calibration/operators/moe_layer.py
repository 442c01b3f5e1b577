"""A whole MoE layer over all ranks; see layer.py."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.operators.expand import layers
from moesim.calibration.operators.ffn import Experts
from moesim.calibration.operators.layer import Layer
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close
from moesim.calibration.routed import route

DTYPES = ("bf16", "fp16", "fp32")


def cases(plan: PlanSection, world: int) -> Iterator[Case]:
    """The plan's layers over the ranks that are here."""
    for layer in layers(plan, world):
        for dtype in (name for name in plan.dtypes if name in DTYPES):
            yield Case(
                "moe_layer", "moe_layer", dtype, shape(**layer.columns), layer.distribution,
                layer.routed.group_sizes, layer.routed.split_matrix, seed=plan.seed,
            )  # fmt: skip


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    world, rank = place.peers.world, place.peers.rank
    tokens = case["tokens"] // world
    routed = route(case.distribution, case["experts"], case["topk"], world, tokens, seed=case.seed)
    experts = Experts.of(case, place, dtype=case.dtype, sizes=case.sizes(rank))
    weight = place.random(tokens, case["topk"], dtype=case.dtype).abs()
    layer = Layer.of(routed, rank, experts, weight, loop=False)
    inputs = place.random(tokens, case["hidden"], dtype=case.dtype)

    def check(found: torch.Tensor) -> None:
        expect_close(found, _reference(experts, weight, inputs, torch.from_numpy(routed.expert[rank]), world))

    return Prepared(partial(layer, inputs), check, experts.flops(), experts.bytes(inputs.element_size()))


def _reference(
    experts: Experts, weight: torch.Tensor, inputs: torch.Tensor, chosen: torch.Tensor, world: int
) -> torch.Tensor:
    """Token by token over all experts, in fp32: every rank's weights come here first."""
    up, down = (_everywhere(part, world) for part in (experts.up, experts.down))
    total = torch.zeros_like(inputs, dtype=torch.float32)
    for expert in range(len(up)):
        token, choice = (chosen == expert).nonzero(as_tuple=True)
        token, choice = token.to(inputs.device), choice.to(inputs.device)
        alone = Experts(
            up[expert : expert + 1], down[expert : expert + 1], experts.matrices, (len(token),), experts.ends
        )
        share = weight[token, choice].float().unsqueeze(1)
        total.index_add_(0, token, alone.reference(inputs[token]) * share)
    return total


def _everywhere(part: torch.Tensor, world: int) -> torch.Tensor:
    """[local, ...] -> [all, ...]."""
    if world == 1:
        return part
    found = [torch.empty_like(part) for _ in range(world)]
    dist.all_gather(found, part)
    return torch.cat(found)


OPERATOR = Operator("grouped_mm_layer", cases, prepare, collective=True)
