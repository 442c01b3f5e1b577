"""`moesim validate papers`: single results of papers on training, each with the law or the model that should give it.

MoE++: expert time is affine in the share of tokens that go to FFN experts, each point by a line through the others of
its model. CoE: 16 bytes a parameter (fp32 weight, gradient, two moments) and one rest, each total by the other's rest.
Tutel: the layer's time grows with rows, tokens x min(top-k, experts). DeepSeek: the six phases of its profiled DualPipe
chunk (one layer, 4,096 tokens a rank, EP64 on H800) by `lower`, GEMMs on the SMs that communication leaves. FSMoE: four
schedules from the published times of their operations (fsmoe.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from moesim import shipped
from moesim.errors import BadInput
from moesim.layout import Layout
from moesim.step import lower
from moesim.studies.training import load_training
from moesim.studies.training.job import job_of
from moesim.studies.validation import fsmoe, waiting
from moesim.studies.validation.rows import Row, number, read_rows
from moesim.studies.validation.validation import Point, Validation
from moesim.training.stages import SplitSchedule, Stage

FEWEST: Final = 4  # points of a model: a line through three others
BYTES: Final = 16  # of a parameter in fp32 with Adam
GEMM: Final = "gemm"
SLOTS: Final = {"1": "one expert", "2": "two experts"}
PHASES: Final = {  # of the profile -> tasks of a layer
    "attn(F)": ("attention", "router"), "mlp(F)": ("shared", "experts"),
    "mlp(B)": ("shared_backward_data", "experts_backward_data"),
    "mlp(W)": ("shared_backward_weight", "experts_backward_weight"),
    "attn(B)": ("attention_backward_data", "router_backward_data"),
    "attn(W)": ("attention_backward_weight", "router_backward_weight"),
}  # fmt: skip
COMPUTE_STREAM: Final = "7"
FACTS: Final = {
    "data": "moepp_expert_time.csv, coe_memory.csv, tutel_one_gpu.csv, deepseek_train_profile.csv, "
    "fsmoe_operations.csv, fsmoe_starts.csv, fsmoe_schedules.csv",
    "of_laws": "MoE++, CoE and Tutel are the papers' figures against a law among themselves: no price and no ledger of "
    "moesim is in them; the DualPipe chunk is predicted by moesim",
    "held_out": "MoE++ leaves each point out of its line, CoE each total out of its rest; Tutel has no constant. The "
    "DualPipe chunk is in-sample: two factors of the backward pass and of elementwise kernels come from this profile",
    "not_here": "MoE++ 7B has one point",
}


def validate(data: Path | None = None) -> Validation:
    """All of them. Raises BadInput where a table is given."""
    if data is not None:
        raise BadInput("results of papers come with their laws", where=data, way_out="leave --data out")
    table = fsmoe.Table(_rows("fsmoe_operations", "ms"), _rows("fsmoe_starts", "alpha_ms"))
    schedules, facts = fsmoe.points(table, _rows("fsmoe_schedules", "speedup"))
    profile = _rows("deepseek_train_profile", "wall_us")
    waits, said = waiting.points(job_of(load_training("dsv3-train-2048")), profile)
    found = (
        *_moepp(_rows("moepp_expert_time", "expert_forward_ms")), *_coe(_rows("coe_memory", "memory_GB")),
        *_tutel(_rows("tutel_one_gpu", "V100_s")), *_dualpipe(profile), *waits, *schedules,
    )  # fmt: skip
    return Validation("papers", found, ("paper", "of"), {**FACTS, "waiting": said, **facts})


def _rows(name: str, column: str) -> list[Row]:
    return [row for _, row in read_rows(shipped.shipped("workloads", "validation", f"{name}.csv"), (column,))]


def _moepp(rows: Sequence[Row]) -> Iterator[Point]:
    """Lines in the share of tokens."""
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        share, taken = (
            np.array([number(row, name) for row in own]) for name in ("ffn_token_share", "expert_forward_ms")
        )
        for left in range(len(own) if len(own) >= FEWEST else 0):
            others = np.arange(len(own)) != left
            line = np.polyfit(share[others], taken[others], 1)
            keys = {"paper": "MoE++", "of": model, "case": f"tau {own[left]['tau']}"}
            yield Point(keys, "ms", float(taken[left]), float(np.polyval(line, share[left])))


def _coe(rows: Sequence[Row]) -> Iterator[Point]:
    """Each by the rest of the other."""
    held = [BYTES * number(row, "params_M") / 1e3 for row in rows]
    totals = [number(row, "memory_GB") for row in rows]
    for one, other in ((0, 1), (1, 0)):
        keys = {"paper": "CoE", "of": rows[one]["config"], "case": "peak memory"}
        yield Point(keys, "GB", totals[one], held[one] + totals[other] - held[other])


def _tutel(rows: Sequence[Row]) -> Iterator[Point]:
    """Over the time of one expert and top-1 of the same precision."""
    for row in rows:
        base = next(one for one in rows if one["dtype"] == row["dtype"] and one["top_k"] == one["local_experts"] == "1")
        if row is base:
            continue
        grows = min(int(row["top_k"]), int(row["local_experts"]))
        for gpu in ("V100", "RTX2080Ti"):
            ratio = number(row, f"{gpu}_s") / number(base, f"{gpu}_s")
            keys = {
                "paper": "Tutel",
                "of": f"{gpu} {row['dtype']}",
                "case": f"top-{row['top_k']}, {SLOTS[row['local_experts']]}",
            }
            yield Point(keys, "1", ratio, float(grows))


def _dualpipe(rows: Sequence[Row]) -> Iterator[Point]:
    """Milliseconds of a layer by phase, and of all of them."""
    predicted = chunk_ms()
    own = [row for row in rows if row["cuda_stream"] == COMPUTE_STREAM]
    layers = len({row["layer"] for row in own})
    measured = {
        name: sum(number(row, "wall_us") for row in own if row["phase"] == name) / layers / 1e3 for name in PHASES
    }
    for name in PHASES:
        yield Point({"paper": "DeepSeek DualPipe", "of": "phases", "case": name}, "ms", measured[name], predicted[name])
    keys = {"paper": "DeepSeek DualPipe", "of": "sum of phases", "case": "a layer"}
    yield Point(keys, "ms", sum(measured.values()), sum(predicted.values()))


def chunk_ms() -> dict[str, float]:
    """Phase -> milliseconds of one expert layer of the shipped scenario on DeepSeek-V3, its experts not recomputed."""
    job = job_of(load_training("dsv3-train-2048", ("training.recompute=[mla_up_proj]",)))
    layer = job.model.moe_layers[0]
    stage = Stage(1, 3, layer, layer + 1)
    plan = replace(
        job.plan(stage), layout=Layout(job.layout.island, 1, job.layout.expert_parallel), schedule=SplitSchedule(stage)
    )
    lowered = lower(plan, [job.batch(job.layout.island)])
    seconds = lowered.graph.lane_seconds + lowered.work[GEMM] * (plan.dispatch.slowdown - 1)
    found = {
        name: float(seconds[lowered.graph.lanes(task)].mean()) * 1e3 for task, name in enumerate(lowered.graph.name)
    }
    return {phase: sum(found[name] for name in names) for phase, names in PHASES.items()}
