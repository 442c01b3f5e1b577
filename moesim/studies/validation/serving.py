"""`moesim validate serving`: TTFT and TPOT of served models against measured ones; nothing is fitted beyond profiles.

The rows are closed loops of `concurrency` clients who send 10 prompts each, all at t = 0, of lengths drawn evenly from
0.8 to 1.0 of the nominal ones; measured values are means. Engines run by their presets, with the launch settings of the
campaigns (CAMPAIGNS, documented, none fitted). Steps are played by `Tabled` tables of the corridor's Pace. Rows whose
`flag` is not ok are told apart and count in no metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from moesim import shipped, streams
from moesim.errors import BadInput, MoesimError
from moesim.models import load_model
from moesim.routing import Sampled
from moesim.serving import Book, Replica, Requests, Scheduler, Settings, State, engine, hosted, serve
from moesim.serving.metrics import counted, tpot, ttft
from moesim.serving.tabled import Tabled
from moesim.step import StepPlan
from moesim.step.pace import Pace
from moesim.studies.build import draft
from moesim.studies.load import Loaded, load_data
from moesim.studies.serving.build import kv_memory
from moesim.studies.validation.rows import number, read_rows, spearman, whole
from moesim.studies.validation.serving_band import band_of, learned
from moesim.studies.validation.validation import Point, Validation, errors

DATA: Final = ("workloads", "validation", "silicon_dev.csv")
MOST: Final = 1e9  # tokens, requests, ranks: beyond it a cell is no number of any
COLUMNS: Final = (
    "id", "backend", "model_path", "system", "isl", "osl", "gemm_quant_mode", "moe_quant_mode", "tp_size",
    "attention_dp_size", "moe_tp_size", "moe_ep_size", "silicon_ttft_ms", "silicon_tpot_ms", "concurrency",
)  # fmt: skip
PROMPTS: Final = 10  # of each client
TYPICAL: Final = 32  # rows of the step that a layout is drafted with
SHORTEST: Final = 0.8  # of nominal lengths
SLICES: Final = ("flag", "system", "backend", "model", "parallelism", "concurrency")
TOPOLOGIES: Final = {"h100_sxm": "dgx-h100", "h200_sxm": "hgx-h200", "b200_sxm": "dgx-b200", "a100_sxm": "dgx-a100"}
DTYPES: Final = {"fp8": "fp8", "fp8_block": "fp8", "nvfp4": "fp4", "": "bf16", "bfloat16": "bf16", "bf16": "bf16"}
MODELS: Final = {
    "zhipuai/GLM-5": "zai-org/GLM-5", "nvidia/DeepSeek-R1-NVFP4": "deepseek-ai/DeepSeek-R1",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-ai/DeepSeek-V3",
}  # fmt: skip
ROUTING: Final = "decode_in1000out1000"  # DeepSeek-V3's measured skew, for all models: assumed
MXFP4: Final = "openai/gpt-oss-120b"  # its checkpoint quantises the experts alone
Row = Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """What rows share: the engine, the model and how it is spread."""

    backend: str
    model: str
    system: str
    gemm: str
    moe: str
    tensor: int
    data: int
    expert_tensor: int
    expert: int

    @classmethod
    def of(cls, row: Row) -> Kind:
        """Raises BadInput."""
        tensor, data, width, expert = (
            whole(row, name, MOST) for name in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
        )
        gemm, moe = row["gemm_quant_mode"], row["moe_quant_mode"]
        return cls(row["backend"], row["model_path"], row["system"], gemm, moe, tensor, data, width, expert)

    @property
    def cache(self) -> str:
        """Dtype of the KV cache: fp8, but vLLM's on H100 and Qwen3.5's, which stay bf16."""
        plain = (self.backend == "vllm" and self.system == "h100_sxm") or "Qwen3.5" in self.model
        return "bf16" if plain else "fp8"

    @property
    def parallelism(self) -> str:
        """In words."""
        experts = f"EP{self.expert}" if self.expert > 1 else f"moe TP{self.expert_tensor}"
        attention = f"attention DP{self.data}" if self.data > 1 else f"TP{self.tensor}"
        return f"{attention}, {experts}"


@dataclass(frozen=True)
class ServingValidation(Validation):
    """Points of TTFT and TPOT, two a row; refused: reason -> rows."""

    refused: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As Validation, with the metrics of rows whose flag is ok."""
        found = super().to_json()
        ok = [point for point in self.points if point.keys["flag"] == "ok"] or list(self.points)
        metrics: dict[str, float] = {}
        for metric in ("tpot", "ttft"):
            some = [point for point in ok if point.keys["metric"] == metric]
            told = errors(point.error for point in some)
            metrics |= {f"{metric}_{name}": told[name] for name in ("mean_abs_error", "median_abs_error")}
            metrics[f"{metric}_geometric_mean_ratio"] = told["geometric_mean_ratio"]
            metrics[f"{metric}_rank_correlation"] = spearman(some)
        if (covered := self._coverage()) is not None:
            metrics["tpot_band_coverage"] = covered
        metrics["answered_fraction"] = len(self.points) / 2 / max(self.asked or 1, 1)
        found["metrics"] = {name: {"value": value, "unit": "1"} for name, value in metrics.items()}
        found["provenance"]["refused"] = dict(self.refused)
        return found

    def _coverage(self) -> float | None:
        """Share of the ok rows that have a band whose measured TPOT lies in it."""
        rows = [one for one in self.points if one.keys["metric"] == "tpot" and one.keys["flag"] == "ok"]
        banded = [(one.measured / one.predicted, band) for one in rows if (band := band_of(one)) is not None]
        inside = [low <= ratio <= high for ratio, (low, high) in banded]
        return sum(inside) / len(inside) if inside else None

    def breakdown(self) -> dict[str, Any]:
        """slice -> value -> metric -> errors."""
        return {key: {name: _by_metric(some) for name, some in _by(self.points, key).items()} for key in SLICES}


def _by(points: Sequence[Point], key: str) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.keys[key], []).append(point)
    return dict(sorted(found.items()))


def _by_metric(points: Sequence[Point]) -> dict[str, Any]:
    return {metric: errors(point.error for point in some) for metric, some in _by(points, "metric").items()}


def validate(data: Path | None = None) -> ServingValidation:
    """Serve every row of a file with these columns. Raises BadInput where none is understood."""
    path = data or shipped.shipped(*DATA)
    rows = [row for _, row in read_rows(path, COLUMNS)]
    points: list[Point] = []
    refused: dict[str, int] = {}
    for row in rows:
        try:
            points += tuple(_points(row))
        except MoesimError as error:
            refused[_reason(error)] = refused.get(_reason(error), 0) + 1
    if not points:
        raise BadInput("no row is understood", where=path, way_out=next(iter(refused), "add rows"))
    return ServingValidation(
        suite="serving",
        points=tuple(points),
        breakdown_by=(),
        provenance={
            "data": path.name,
            "engines": "presets, launch settings of the campaigns; host 0.3 ms a step, eager and API time 0 for all",
            "routing": f"sampled, assumed: {ROUTING} for every model",
            "fitted": "nothing to these rows",
            "band": "80 %, a model error of each engine: quantile of |log(measured / predicted)| of rows of its "
            "other (model, system)s",
            "band_learned": learned(points),
        },
        warnings=tuple(f"{count} rows refused: {why}" for why, count in sorted(refused.items())),
        asked=len(rows),
        refused=refused,
    )


def _reason(error: MoesimError) -> str:
    return f"{error.where.partition(' ')[2] or error.where}: {error.what}".removeprefix(": ")


def _points(row: Row) -> Iterator[Point]:
    """Both of a row. Raises MoesimError where it cannot be served."""
    kind = Kind.of(row)
    first, later = _served(kind, whole(row, "isl", MOST), whole(row, "osl", MOST), whole(row, "concurrency", MOST))
    keys = {
        "id": row["id"], "flag": row.get("flag") or "ok", "system": kind.system, "backend": kind.backend,
        "model": kind.model, "parallelism": kind.parallelism, "isl": row["isl"], "osl": row["osl"],
        "concurrency": row["concurrency"].removesuffix(".0"),
    }  # fmt: skip
    for metric, predicted in (("ttft", first), ("tpot", later)):
        yield Point({"metric": metric, **keys}, "ms", number(row, f"silicon_{metric}_ms"), predicted)


def _served(kind: Kind, isl: int, osl: int, clients: int) -> tuple[float, float]:
    """Mean TTFT and TPOT, ms."""
    clock, plan = _clock(kind)
    settings = _settings(kind, isl, clients)
    blocks = kv_memory(plan, settings).blocks
    draw = streams.stream(0, "validation", "serving", isl, osl, clients)
    n = PROMPTS * clients
    prompt, output = (draw.integers(max(int(SHORTEST * mean), 1), mean, n, endpoint=True) for mean in (isl, osl))
    with_host = hosted(clock, settings, plan.model.num_layers)

    def make(book: Book) -> list[Replica]:
        return [Replica([Scheduler(settings, book, blocks)], with_host, kind.tensor, ahead=settings.schedule_ahead)]

    found = serve(Requests(np.zeros(n, dtype=np.int64), prompt, output, clients), make)
    if found.book.count(State.FINISHED) < n:
        raise BadInput(f"requests are rejected: {next(iter(found.rejected.values()))}")
    which = counted(found.book, 0)
    return float(ttft(found.book, which).mean() * 1e3), float(np.nanmean(tpot(found.book, which)) * 1e3)


@lru_cache(maxsize=256)
def _clock(kind: Kind) -> tuple[Tabled, StepPlan]:
    """Raises MoesimError where no plan is answered by tables."""
    if kind.data > 1:
        raise BadInput("attention data parallel: ranks wait for each other, steps are no sums")
    plan = _plan(kind)
    return Tabled(plan, Pace(plan)), plan


def _plan(kind: Kind) -> StepPlan:
    """With a skewed routing, and the engine's host time."""
    loaded = _scenario(kind)
    plan = draft(loaded, 0).plan
    routing = _routing(str(loaded.scenario.model)) if plan.model.num_experts else plan.routing
    return replace(plan, routing=routing, host_seconds=engine(kind.backend).host_time)


def _scenario(kind: Kind) -> Loaded:
    """Raises BadInput."""
    if kind.system not in TOPOLOGIES:
        raise BadInput(f"no shipped topology of {kind.system}")
    missing = [name for name in (kind.gemm, kind.moe) if name not in DTYPES]
    if missing:
        raise BadInput(f"quantisation {missing[0]!r} is not known")
    weights = "bf16" if kind.model == MXFP4 else DTYPES[kind.gemm]
    experts = "fp4" if kind.model == MXFP4 else DTYPES[kind.moe]
    scenario = {
        "moesim": 1, "name": "row", "model": MODELS.get(kind.model, kind.model),
        "cluster": {"topology": TOPOLOGIES[kind.system], "nodes": 1},
        "parallel": {
            "tensor_parallel_size": kind.tensor, "expert_parallel_size": kind.expert,
            "expert_tensor_parallel_size": kind.expert_tensor,
        },
        "comm": {
            "dispatch": "replicated" if kind.expert > 1 else "nccl", "all_reduce": engine(kind.backend).all_reduce,
        },
        "precision": {"weights": weights, "experts": experts, "kv_cache": kind.cache},
        "routing": {"balanced": True}, "costs": {"profile": "auto", "kernels": kind.backend},
        "batch": {"phase": "decode", "tokens_per_gpu": max(TYPICAL // kind.tensor, 1), "context": 1024},
    }  # fmt: skip
    return load_data(scenario, "row")


@lru_cache(maxsize=16)
def _routing(model: str) -> Sampled:
    """The skew of a model's routing, drawn once: it takes seconds."""
    return Sampled(ROUTING, load_model(model), 0)


def _settings(kind: Kind, isl: int, clients: int) -> Settings:
    """The preset, and what the campaigns set at launch."""
    launch = CAMPAIGNS.get(kind.backend)
    changes = launch(kind, isl, clients) if launch else {}
    seats = min(changes.get("max_num_seqs", 512), changes.get("max_num_batched_tokens", 8192))
    return engine(kind.backend, **{**changes, "max_num_seqs": max(seats, 1)})


def _vllm(kind: Kind, isl: int, clients: int) -> dict[str, Any]:
    """H100 scripts set max_num_seqs to the concurrency."""
    return {"max_num_batched_tokens": 8192, "max_num_seqs": clients if kind.system == "h100_sxm" else 512}


def _sglang(kind: Kind, isl: int, clients: int) -> dict[str, Any]:
    """chunked_prefill_size, max_running_requests, mem_fraction_static and scheduler_recv_interval of the scripts."""
    polls = {"poll_interval": 30 if clients >= 16 else 10}
    if "GLM" in kind.model:
        return {"max_num_batched_tokens": 131072 if kind.moe == "nvfp4" else 32768, "max_num_seqs": clients}
    if "DeepSeek" not in kind.model:
        return {"max_num_batched_tokens": 32768, "max_num_seqs": 128, **polls}
    if kind.moe == "nvfp4":
        return {"max_num_batched_tokens": 16384, "max_num_seqs": 256, **polls}
    if kind.tensor == 8:
        return {"max_num_batched_tokens": 32768, "max_num_seqs": 128, **polls}
    return {"max_num_batched_tokens": 8192, "max_num_seqs": 32, "gpu_memory_utilization": 0.95, **polls}


def _trtllm(kind: Kind, isl: int, clients: int) -> dict[str, Any]:
    """max_num_tokens: 20000 for gpt-oss; R1: concurrency + input + 64, rounded up to 64, at least 8192."""
    if "gpt-oss" in kind.model:
        return {"max_num_batched_tokens": 20000, "max_num_seqs": 512}
    budget = -(-(clients + isl + 64) // 64) * 64 if "DeepSeek" in kind.model else 8192
    return {"max_num_batched_tokens": max(budget, 8192), "max_num_seqs": 512}


CAMPAIGNS: Final[Mapping[str, Callable[[Kind, int, int], dict[str, Any]]]] = {
    "vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm,
}  # fmt: skip
