"""The roofline: no operator is faster than its FLOPs at peak, nor than its bytes at peak bandwidth. All assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim.costs import shapes, sparse
from moesim.costs.communication import CommunicationCost
from moesim.costs.estimate import Estimate
from moesim.costs.recurrences import demands_of
from moesim.errors import BadInput
from moesim.hardware import Device
from moesim.models import NVFP4, Attention, Linear


class Roofline:
    """Peak rates of `device` and nothing else; communication at nominal rates without constants. fp4_block: weights in
    fp4 that share a byte of scale, which is read with them.
    """

    name = "roofline"
    kernels = ""
    clock_note = ""
    families: Mapping[str, float] = {}
    widens: Mapping[str, float] = {}
    backward: Mapping[str, float] = {"gemm": 2.0, "experts": 2.0, "attention": 2.5, "elementwise": 2.0}

    def __init__(self, device: Device, algorithms: tuple[str, ...], fp4_block: int = NVFP4) -> None:
        self._device, self._fp4 = device, "fp4" if fp4_block == NVFP4 else "mxfp4"
        self.device = device.name
        self.communication: Mapping[str, CommunicationCost] = {
            name: CommunicationCost(alpha=0.0, source="nominal rates") for name in algorithms
        }

    def sustained(self) -> Roofline:
        """See CostModel: peaks are peaks."""
        return self

    def gemm(self, m: npt.ArrayLike, n: int, k: int, dtype: str) -> Estimate:
        """See CostModel."""
        demand = shapes.gemm(m, n, k, self._stored(dtype))
        return self._bound("gemm", demand.flops, demand.bytes, dtype)

    def experts(
        self, rows: npt.ArrayLike, hidden: int, inter: int, dtype: str, matrices: int,
        choices: npt.ArrayLike | None = None,
    ) -> Estimate:  # fmt: skip
        """See CostModel; without padding of rows."""
        return self.experts_of(shapes.rows_of(rows, 1), hidden, inter, dtype, matrices, choices)

    def expert_tile(self, dtype: str) -> int:
        """See CostModel."""
        return 1

    def experts_of(
        self, rows: shapes.Rows, hidden: int, inter: int, dtype: str, matrices: int,
        choices: npt.ArrayLike | None = None,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        demand = shapes.experts(rows, hidden, inter, self._stored(dtype), matrices, choices)
        return self._bound("grouped_gemm", demand.flops, demand.bytes, dtype)

    def attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        demand = shapes.attention_of(shape, phase, query, context, requests, heads, dtype)
        return self._bound("attention", demand.flops, demand.bytes, "bf16")

    def full_attention(
        self, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, heads: int, dtype: str
    ) -> Estimate:
        """See CostModel."""
        demand = shapes.full_attention_of(shape, query, requests, heads)
        return self._bound("attention", demand.flops, demand.bytes, "bf16")

    def latent_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str, weights: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel: its core."""
        return self.attention(phase, query, context, requests, shape, heads, dtype)

    def sparse_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        hidden: int, ways: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        asked = (query, context, requests, sparse.of_rank(shape, ways), dtype)
        peaks, core = self._device.peak_flops, sparse.core(*asked)
        bf16 = peaks.get("bf16", 1.0)  # a device without is refused by _bound
        at = sparse.at_rates(core, sparse.scores(*asked), peaks.get("fp8", bf16), bf16)
        return replace(self._bound("attention", at.flops, core.bytes, "bf16"), flops=core.flops)

    def recurrence(
        self, phase: str, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Linear, ways: int
    ) -> tuple[Estimate, ...]:
        """See CostModel."""
        demands = demands_of(shape, phase, query, requests, ways)
        return tuple(self._bound("recurrence", one.flops, one.bytes, "bf16") for one in demands.values())

    def hyper(self, tokens: npt.ArrayLike, hidden: int, copies: int) -> tuple[Estimate, ...]:
        """See CostModel."""
        demands = [shapes.hyper(part, tokens, hidden, copies) for part in ("pre", "post")]
        return tuple(self._bound("hyper-connections", one.flops, one.bytes, "bf16") for one in demands)

    def elementwise(self, moved: npt.ArrayLike) -> Estimate:
        """See CostModel."""
        nbytes = np.asarray(moved, dtype=np.float64)
        return self._bound("elementwise", np.zeros_like(nbytes), nbytes, "bf16")

    def host_seconds(self, phase: str, layers: int) -> float:
        """None: the roofline knows no host."""
        return 0.0

    def _stored(self, dtype: str) -> str:
        """How weights lie in memory."""
        return self._fp4 if dtype == "fp4" else dtype

    def _bound(self, family: str, flops: shapes.Floats, nbytes: shapes.Floats, dtype: str) -> Estimate:
        peak = self._device.peak_flops.get(dtype)
        if peak is None:
            known = ", ".join(sorted(self._device.peak_flops))
            way_out = f"one of {known} (precision.experts, precision.weights)"
            raise BadInput(f"{self.device} has no {dtype} arithmetic", way_out=way_out)
        seconds = np.maximum(flops / peak, nbytes / self._device.memory_bandwidth)
        nowhere = np.zeros(seconds.shape, dtype=np.bool_)
        return Estimate(seconds, family, "assumed", nowhere, flops=flops, bytes=nbytes, dtype=dtype)
