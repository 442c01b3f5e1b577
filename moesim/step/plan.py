"""Everything that stays the same from one micro-batch to the next: who computes what, by which rules and prices."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.layout import OPTIMIZERS, Layout, Optimizer, Placement
from moesim.models import MoEModel
from moesim.network import AllToAll, Fabric
from moesim.routing import RoutingSource
from moesim.schedules import LayerSchedule
from moesim.step.dispatch import EVEN
from moesim.step.ops import LayerOps


@dataclass(frozen=True)
class Dispatch:
    """The all-to-all of a step: its algorithm, and the bytes of one token's row on the way there and back."""

    algorithm: AllToAll
    dispatch_row_bytes: int
    combine_row_bytes: int
    compute_slowdown: float  # all SMs over the SMs that its kernels leave, where they hold any during compute


@dataclass(frozen=True)
class StepPlan:
    """What `lower` needs beside the batch. `recompute` holds Megatron's module names ("core_attn", "moe").

    replicas: how a token picks one of an expert's replicas (step/dispatch.py).
    """

    model: MoEModel
    layout: Layout
    placement: Placement
    routing: RoutingSource
    ops: LayerOps
    fabric: Fabric
    dispatch: Dispatch
    schedule: LayerSchedule
    overlap_shared: bool = True
    recompute: frozenset[str] = frozenset()
    optimizer: Optimizer = OPTIMIZERS["adam"]
    host_seconds: float = 0.0
    replicas: int = EVEN
