"""Is what the plan `gpu-20m` measures enough? `python -m benchmarks.calibration_design` takes the plan's points from
the H100's tables of aiconfigurator-core 0.12.0 (shapes of its models, the nearest that a table has; sizes likewise),
fits them as `calibrate fit` does, and judges the fits on all other sizes of these shapes.

Each operator is fitted alone and from a prior: the H200's profile (the nearest that was fitted to other rows), and the
B200's, of another generation; held-out sizes decide whether that is taken, as in `calibrate fit`. Errors are
|predicted / measured - 1|, median / 90th percentile, of sound rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.calibration.aiconfigurator import import_tables
from moesim.calibration.heldout import Prepared, prepare
from moesim.calibration.measure.plan import MOST_CACHED, PlanSection, load_plan
from moesim.calibration.physics import label
from moesim.calibration.prior import priors_of, with_prior
from moesim.calibration.records import Records
from moesim.calibration.systems import System, find_system
from moesim.errors import TargetMissed
from moesim.models import MoEModel, load_routed

Point = dict[str, int]
Bools = npt.NDArray[np.bool_]
PLAN, SYSTEM, PRIORS = "gpu-20m", "h100_sxm", ("h200_sxm", "b200_sxm")
ROWS: Final = 500  # of all operators together
SKEWED: Final = "power_law_1.2"  # stands for the plan's recorded routing


class Design(NamedTuple):
    """One operator's kernel in the tables; columns that make a shape, and a size; the plan's points; the bar."""

    op: str
    backend: str
    kernel: str
    dtype: str
    shape: tuple[str, ...]
    size: tuple[str, ...]
    points: Callable[[PlanSection], Iterator[Point]]
    bar: tuple[float, float]


def _decodes(plan: PlanSection) -> Iterator[Point]:
    for model in _models(plan):
        core = model.attention
        for degree in plan.tensor_parallel if core.kind != "mla" else ():
            heads, cached = core.num_heads // degree, max(core.num_kv_heads // degree, 1)
            shape = {"heads": heads, "kv_heads": cached, "head_dim": core.head_dim}
            yield from ({**shape, "batch": batch, "context": context - 1} for batch in plan.batches
                        for context in plan.contexts if batch * context <= MOST_CACHED)  # fmt: skip


def _experts(plan: PlanSection) -> Iterator[Point]:
    for model in _models(plan):
        shape = {"hidden": model.hidden_size, "inter": model.expert_intermediate, "topk": model.top_k,
                 "experts": model.num_experts, "tp": 1}  # fmt: skip
        for ranks in plan.expert_parallel:
            yield from ({**shape, "ep": ranks, "tokens": ranks * tokens} for tokens in plan.tokens)


def _gemms(plan: PlanSection) -> Iterator[Point]:
    for model in _models(plan):
        for degree in plan.tensor_parallel:
            matrices = (*model.mixer_gemms(degree), *model.shared_gemms(), *model.dense_gemms(), model.router_gemm())
            for one in (*matrices, model.head_gemm(degree)):
                yield from ({"n": one.n, "k": one.k, "m": tokens} for tokens in plan.tokens)


DESIGNS: Final = (
    Design("attention_decode", "vllm", "vllm_flash_attn_fa3", "bf16", ("heads", "kv_heads", "head_dim"),
           ("batch", "context"), _decodes, (0.06, 0.20)),
    Design("grouped_gemm", "sglang", "sglang_fused_moe_triton", "fp8_block",
           ("hidden", "inter", "topk", "experts", "tp", "ep"), ("tokens",), _experts, (0.07, 0.25)),
    Design("gemm", "vllm", "torch.nn.functional.linear", "bf16", ("n", "k"), ("m",), _gemms, (0.05, 0.15)),
)  # fmt: skip


def main() -> None:
    """Print the table. Raises TargetMissed where a fit from the first prior misses its bar, or rows are too many."""
    system, plan = find_system(SYSTEM), load_plan(PLAN)
    print(f"| operator | rows | judged | alone | {' | '.join(f'from {one}' for one in PRIORS)} | bar |")
    print("|---|---|---|---|" + "---|" * len(PRIORS) + "---|")
    used, missed = 0, []
    for design in DESIGNS:
        records = _table(design, system)
        records, taken = _taken(records, design, list(design.points(plan)))
        used += int(taken.sum())
        prepared = prepare(records, system.peaks(design.dtype))
        fits = [_from(prepared, records, taken, one, system) for one in PRIORS]
        found = [_errors(one, taken) for one in (prepared, *fits)]
        if found[1][0] > design.bar[0] or found[1][1] > design.bar[1]:
            missed.append(design.op)
        told = " | ".join(f"{100 * median:.1f} / {100 * p90:.1f}" for median, p90 in found)
        print(f"| {design.op} | {int(taken.sum())} | {int((~taken).sum())} | {told} | "
              f"{design.bar[0]:.0%} / {design.bar[1]:.0%} |")  # fmt: skip
    print(f"{used} rows of {ROWS}")
    if missed or used > ROWS:
        raise TargetMissed(f"{', '.join(missed) or 'no operator'} above the bar, {used} rows")


def _models(plan: PlanSection) -> list[MoEModel]:
    return [load_routed(name) for name in plan.models]


def _table(design: Design, system: System) -> Records:
    """The measured rows of that kernel, labelled beside all other engines' of its operator."""
    rows = label(import_tables(SYSTEM, [design.op]), system)
    rows = rows.of(backend=design.backend, kernel=design.kernel, dtype=design.dtype)
    plain = rows["window"] == 0
    return rows.where(plain & (rows["cache_dtype"] == ("bf16" if "attention" in design.op else "")))


def _taken(records: Records, design: Design, points: list[Point]) -> tuple[Records, Bools]:
    """Rows of the shapes nearest to the points', and which of these a plan's points are."""
    shapes = np.unique(np.stack([records[name] for name in design.shape], axis=1), axis=0)
    wanted: dict[tuple[int, ...], list[Point]] = {}
    for point in points:
        apart = np.sum(np.square(_octaves(shapes) - _octaves([point[name] for name in design.shape])), axis=1)
        wanted.setdefault(tuple(shapes[np.argmin(apart)].tolist()), []).append(point)
    kept, taken = np.zeros(len(records), dtype=np.bool_), np.zeros(len(records), dtype=np.bool_)
    for shape, own in wanted.items():
        of_shape = np.all([records[name] == value for name, value in zip(design.shape, shape, strict=True)], axis=0)
        kept |= of_shape
        near = [_nearest(records[name][of_shape], [point[name] for point in own]) for name in design.size]
        sizes = set(zip(*near, strict=True))
        at = list(zip(*(records[name].tolist() for name in design.size), strict=True))
        taken |= of_shape & np.array([one in sizes for one in at])
    if "grouped" in design.op:
        taken &= np.isin(records["distribution"].astype(str), ["balanced", SKEWED])
    return records.where(kept), taken[kept]


def _nearest(values: npt.NDArray[np.int64], wanted: list[int]) -> list[int]:
    known = np.unique(values)
    return [int(known[np.argmin(np.abs(_octaves(known) - _octaves([one])))]) for one in wanted]


def _octaves(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(np.log2(np.maximum(np.asarray(values, dtype=np.float64), 1)))


def _from(prepared: Prepared, records: Records, taken: Bools, prior: str, system: System) -> Prepared:
    """As `calibrate fit --prior` decides, which sees the taken rows alone."""
    own = records.where(taken)
    seen = prepare(own, system.peaks(str(records["dtype"][0])))
    return replace(prepared, prior=with_prior(seen, priors_of(own, prior, system)).prior)


def _errors(prepared: Prepared, taken: Bools) -> tuple[float, float]:
    predicted = prepared.predict(prepared.fit(taken), ~taken)
    off = np.abs(predicted / prepared.seconds[~taken] - 1)[prepared.sound[~taken]]
    return float(np.median(off)), float(np.quantile(off, 0.9))


if __name__ == "__main__":
    try:
        main()
    except TargetMissed as error:
        print(error)
        sys.exit(4)
