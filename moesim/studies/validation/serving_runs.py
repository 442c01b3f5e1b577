"""Two dense models served by vLLM, request by request: distributions of TTFT and TPOT beside those of the same requests
on a Replica and its exact Pace. Source: LLMServingSim, bench/examples (vLLM 0.19.0 on RTX PRO 6000).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from moesim import shipped
from moesim.serving import Book, Hosted, Replica, Requests, Scheduler, engine, serve
from moesim.serving.metrics import Floats, tpot, ttft
from moesim.step import StepPlan
from moesim.step.pace import Pace
from moesim.studies.build import draft
from moesim.studies.load import load_data
from moesim.studies.serving.build import kv_memory
from moesim.studies.validation.rows import read_rows
from moesim.units import to_ps

FOLDER: Final = ("workloads", "validation", "vllm_dense")
COLUMNS: Final = ("input_tokens", "output_tokens", "queued_s", "first_token_s", "last_token_s")
LAUNCH: Final = {"max_num_seqs": 128, "max_num_batched_tokens": 2048}  # of both runs
PERCENTILES: Final = (10, 50, 90)
Compared = Mapping[str, Mapping[str, tuple[float, float]]]


@dataclass(frozen=True)
class Run:
    """A shipped run: its file, model and tensor-parallel size."""

    path: Path
    model: str
    tensor: int

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model.rpartition("/")[2]


def runs() -> Iterator[Run]:
    """The files MAKER--MODEL_tpN.csv."""
    for path in sorted(shipped.shipped(*FOLDER).glob("*.csv")):
        model, _, tensor = path.stem.rpartition("_tp")
        yield Run(path, model.replace("--", "/"), int(tensor))


def compared(run: Run) -> Compared:
    """ttft, tpot -> mean, p10 ... -> ms measured and predicted. Raises MoesimError."""
    rows = [row for _, row in read_rows(run.path, COLUMNS)]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}
    order = np.argsort(columns["queued_s"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    book, which = _served(run, columns), np.arange(len(rows))
    first, last = columns["first_token_s"], columns["last_token_s"]
    measured = {"ttft": first - columns["queued_s"], "tpot": (last - first) / (columns["output_tokens"] - 1)}
    predicted = {"ttft": ttft(book, which), "tpot": tpot(book, which)}
    return {name: dict(_beside(measured[name], predicted[name])) for name in measured}


def _beside(measured: Floats, predicted: Floats) -> Iterator[tuple[str, tuple[float, float]]]:
    yield "mean", (float(measured.mean() * 1e3), float(predicted.mean() * 1e3))
    for share in PERCENTILES:
        yield f"p{share}", (float(np.percentile(measured, share) * 1e3), float(np.percentile(predicted, share) * 1e3))


def _served(run: Run, columns: Mapping[str, Floats]) -> Book:
    settings, plan = engine("vllm", **LAUNCH), _plan(run)
    plan = replace(plan, host_seconds=settings.host_time)
    blocks = kv_memory(plan, settings).blocks
    clock = Hosted(Pace(plan), settings, plan.model.num_layers, run.tensor)
    prompt, output = (columns[name].astype(np.int64) for name in ("input_tokens", "output_tokens"))

    def make(book: Book) -> list[Replica]:
        return [Replica([Scheduler(settings, book, blocks)], clock, run.tensor, ahead=settings.schedule_ahead)]

    return serve(Requests(to_ps(columns["queued_s"]), prompt, output, 0), make).book


def _plan(run: Run) -> StepPlan:
    """Raises BadInput."""
    scenario = {
        "moesim": 1, "name": run.name, "model": run.model, "cluster": {"topology": "rtx-pro-6000-pcie", "nodes": 1},
        "parallel": {"tensor_parallel_size": run.tensor}, "precision": {"weights": "bf16", "kv_cache": "bf16"},
        "costs": {"profile": "auto", "kernels": "vllm"},
        "batch": {"phase": "decode", "tokens_per_gpu": 32, "context": 1024},
    }  # fmt: skip
    return draft(load_data(scenario, run.name), 0).plan
