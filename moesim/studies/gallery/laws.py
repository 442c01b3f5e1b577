"""Laws of every step that a row plays: its parts add up, and its time reads the bytes that its memory holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.costs.shapes import ARITHMETIC, BF16, WEIGHT_BYTES
from moesim.models import Attention, Gemm
from moesim.studies.result import Played, Result

ADDS_UP: Final = 1e-6  # of a step: by how much its parts may miss it
WHOLE: Final = 1e-6  # of a reading of the weights: sums of large floats
SIGNED: Final = "schedule_effect_s"  # the only part below zero; see studies/ladder.py
DENSE: Final = {  # tasks of the forward pass -> what the ledger calls their weights
    "attention": ("attention weights", "linear attention weights"),
    "mlp": ("dense FFN weights",),
    "shared": ("shared expert weights",),
    "head": ("embedding weights",),
}
Floats = npt.NDArray[np.float64]


def unlawful(result: Result) -> list[str]:
    """What a played step breaks, in words."""
    return [*parts(result.breakdown, result.metrics["step_time_s"].value), *_dense(result), *_experts(result)]


def parts(breakdown: Mapping[str, float | None], step: float) -> Iterator[str]:
    """Parts are none below zero, but the one with a sign, and add up to the step."""
    known = {name: value for name, value in breakdown.items() if value is not None}
    yield from (f"{name} is {value:.3g} s" for name, value in known.items() if value < 0 and name != SIGNED)
    gap = abs(sum(known.values()) - step)
    if gap > ADDS_UP * step:
        yield f"parts miss the step by {gap:.3g} s"


@dataclass(frozen=True)
class _Read:
    """Of each rank: rows that went through some matrices, and bytes of weights read for them."""

    rows: Floats
    weights: Floats


def _read(flops: Floats, moved: Floats, gemms: Iterable[tuple[Gemm, int]], dtype: str) -> _Read:
    """gemms: with the layers that have them, all of the same rows. FLOPs say how many rows there were; what moved
    beside weights is each row, in and out.
    """
    width = WEIGHT_BYTES[dtype] if ARITHMETIC.get(dtype, dtype) == "fp8" else BF16
    known = list(gemms)
    rows = flops / (2.0 * sum(layers * gemm.parameters for gemm, layers in known))
    return _Read(rows, moved - rows * sum(layers * (gemm.k * width + gemm.n * BF16) for gemm, layers in known))


def _dense(result: Result) -> Iterator[str]:
    """Every layer's projections, dense FFN and shared expert, and the head, are read whole, once a task; a decode step
    reads all of the KV cache.
    """
    played = result.played
    ops = played.plan.ops
    for task, names in DENSE.items():
        own = [part for part in ops.spread.parts(ops.precision.weights) if part.name in names and part.parameters]
        demand = played.demand.get((task, "gemm"))
        if not own or demand is None:
            continue
        layers = [1 if task == "head" else part.layers for part in own]
        gemms = [(gemm, count) for part, count in zip(own, layers, strict=True) for gemm in part.gemms]
        read = _read(demand.flops, demand.bytes, gemms, own[0].dtype)
        held = sum(ops.spread.held(part) / part.layers * count for part, count in zip(own, layers, strict=True))
        times = _tasks(played, task) / sum(layers)
        if not np.allclose(read.weights, np.where(read.rows > 0, times, 0) * held, rtol=WHOLE):
            most = read.weights.max()
            yield f"{task} reads {most:.6g} B of weights, memory holds {held:.6g} B, {times.max():g} times"
        if task == "attention":
            yield from _cache(played, read.rows)


def _cache(played: Played, rows: Floats) -> Iterator[str]:
    """Beside the cache the core moves a query and an answer of each head of each row."""
    spread = played.plan.ops.spread
    held = next((row.bytes for row in played.memory.rows if row.item == "KV cache"), 0)
    demand = played.demand.get(("attention", "attention"))
    mixers = spread.model.mixed
    if played.phase != "decode" or demand is None or any(_other(mixer) for mixer, _ in mixers):
        return
    heads = sum(
        layers * mixer.num_heads // spread.tensor * (mixer.head_dim + mixer.v_head_dim)
        for mixer, layers in mixers
        if isinstance(mixer, Attention)
    )
    read = float((demand.bytes - rows * heads * BF16).max())
    if abs(read - held) > WHOLE * held:
        yield f"attention reads {read:.6g} B of keys and values, memory holds {held:.6g} B"


def _other(mixer: object) -> bool:
    """Whether it caches something else than keys and values of all tokens."""
    return not isinstance(mixer, Attention) or mixer.kind == "mla" or mixer.window > 0


def _experts(result: Result) -> Iterator[str]:
    """Experts are read whole, those that have rows, and no more than a rank holds in each of its tasks."""
    played = result.played
    ops, model = played.plan.ops, played.plan.model
    if not model.routed:
        return
    gemms = ops.spread.expert_gemms()
    slot = sum(gemm.parameters for gemm in gemms) * model.weight_bytes(ops.precision.experts)
    held = next(row.bytes for row in played.memory.rows if row.item == "expert weights")
    times = _tasks(played, "experts") / len(model.moe_layers)
    for family, demand in ((family, one) for (task, family), one in played.demand.items() if task == "experts"):
        if not demand.flops.any():
            continue
        fused = family != "gemm"  # one operator keeps what is between its matrices to itself
        rows = demand.flops / (2.0 * sum(gemm.parameters for gemm in gemms))
        matrices = model.expert_matrices
        between = BF16 * (min(matrices, 2) * model.row_width + matrices * ops.spread.expert_width)
        read = (
            demand.bytes - rows * between
            if fused
            else _read(demand.flops, demand.bytes, [(gemm, 1) for gemm in gemms], ops.precision.experts).weights
        )
        slots = read / slot
        if np.abs(slots - np.rint(slots)).max() > WHOLE * max(slots.max(), 1.0):
            yield f"experts read {slots.max():.6g} slots"
        if (read > times * held * (1 + WHOLE)).any():
            yield f"experts read {read.max():.6g} B of weights, memory holds {held:.6g} B, {times.max():g} times"


def _tasks(played: Played, name: str) -> Floats:
    """float64[ranks]: tasks of that name."""
    graph = played.graph
    mine = np.array([one == name for one in graph.name], dtype=bool)[graph.lane_task]
    return np.bincount(graph.lane_rank[mine], minlength=len(played.sent)).astype(np.float64)
