"""DeepEP's low-latency kernels (V1 interface `Buffer`), when the package is installed: CUDA only. A rank sends a copy
per token and expert, in bf16 or quantised by the kernel to fp8; what comes back is bf16.

The kernels take turns on two buffers, so that a dispatch is followed by its combine before the next: what is timed is
one of the two, and the other runs ahead of each sample.

Source: deepseek-ai/DeepEP docs/legacy.md @0297fc8, "Example use in inference decoding", and deep_ep/buffer.py @04b06f7.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch.distributed as dist

from moesim.calibration.measure.case import Case
from moesim.calibration.operators.deepep import FP8_LIMIT, ROW, Tokens, cases, refuses, widened
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close

MOST: Final = 256  # tokens of a rank: engines keep slots for 128 or 256, and prefill takes the normal kernels


class Buffers:
    """DeepEP's buffer in low-latency mode, and one layer's tokens."""

    def __init__(self, case: Case, place: Place) -> None:
        from deep_ep import Buffer

        self.tokens, self.experts, self.fp8 = Tokens(case, place), case["experts"], case.dtype == "fp8"
        world = place.peers.world
        size = Buffer.get_low_latency_rdma_size_hint(MOST, case["hidden"], world, self.experts)
        self.buffer: Any = Buffer(
            dist.group.WORLD, 0, size, low_latency_mode=True, num_qps_per_rank=self.experts // world
        )  # fmt: skip
        self.renew()

    def dispatch(self) -> None:
        """Every token to each of its experts."""
        self.received, _, self.handle, *_ = self.buffer.low_latency_dispatch(
            self.tokens.rows, self.tokens.chosen, MOST, self.experts, use_fp8=self.fp8
        )

    def renew(self) -> None:
        """A dispatch, and what a rank's experts would leave: the rows as they came."""
        self.dispatch()
        self.ready = widened(self.received)

    def combine(self) -> Any:
        """The rows back to their tokens, weighted and summed."""
        return self.buffer.low_latency_combine(self.ready, self.tokens.chosen, self.tokens.weight, self.handle)[0]

    def check_dispatched(self, _: object) -> None:
        """By the way back; the next dispatch is under way afterwards, as before."""
        self.ready = widened(self.received)
        self.check_combined(self.combine())
        self.dispatch()

    def check_combined(self, found: Any) -> None:
        """Unchanged rows come back once from every expert that a token took."""
        limit = FP8_LIMIT if self.fp8 else 0.0
        expect_close(found, self.tokens.rows.float() * self.tokens.chosen.shape[1], limit=limit)


def prepare(case: Case, place: Place) -> Prepared:
    """See Operator."""
    buffers = Buffers(case, place)
    moved = 2.0 * case["tokens"] * case["topk"] * case["hidden"] * ROW[case.dtype]
    if case.op == "dispatch":
        return Prepared(buffers.dispatch, buffers.check_dispatched, bytes=moved, before=buffers.combine)
    buffers.combine()
    return Prepared(buffers.combine, buffers.check_combined, bytes=moved, before=buffers.renew)


def _operator(name: str) -> Operator:
    return Operator(
        "deepep_low_latency", partial(cases, operator=name, prefix="deepep_low_latency", most=MOST), prepare,
        collective=True, least_world=2, refuses=refuses, graphs=False, backend="deepep", module="deep_ep",
    )  # fmt: skip


DISPATCH, COMBINE = _operator("dispatch"), _operator("combine")
