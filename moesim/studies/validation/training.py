"""`moesim validate training`: published training steps, by time, by peak memory and by throughput.

Two kinds of tables, told apart by their columns: steps of Megatron-LM with milliseconds and peak memory (real_ms,
real_alloc_gib), and throughput of a framework's recipes (tokens_per_s_per_gpu). Nothing is fitted to either; what a row
does not say of its recipe is assumed, and stated in the provenance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from moesim import shipped
from moesim.costs import Tables, load_costs
from moesim.errors import BadInput, DoesNotFit
from moesim.hardware import Cluster, load_cluster
from moesim.layout import HBM, default_expert_tensor_parallel
from moesim.models import MoEModel
from moesim.studies.validation.rows import Row, nothing_understood, number, read_rows, spearman, whole
from moesim.studies.validation.training_models import find_model, first_layers
from moesim.studies.validation.validation import Point, Validation, errors
from moesim.training import Job, rank_memory, train_step

FILES: Final = ("megatron_b200_dev.csv",)  # the other kind of table takes some 20 s a row: give it with --data
MEGATRON: Final = ("model", "layers", "gpus", "tp", "cp", "pp", "ep", "micro_batches", "mbs", "seq", "precision",
                   "real_ms", "real_alloc_gib")  # fmt: skip
BRIDGE: Final = ("system", "model", "gpus", "precision", "gbs", "mbs", "seq", "tp", "pp", "cp", "vp", "ep",
                 "tokens_per_s_per_gpu")  # fmt: skip
TOPOLOGIES: Final = {"h100": "dgx-h100", "b200": "dgx-b200", "b300": "b300", "gb200": "gb200-nvl72",
                     "gb300": "gb300-nvl72"}  # fmt: skip
RECIPE: Final = (
    "bf16 parameters, fp32 gradients added up in place and reduced in fp32, master copies and Adam's moments sharded "
    "over equal ranks, nothing recomputed, flash attention, sequence parallelism with TP, 1F1B (interleaved where a "
    "virtual size is given), even rows of experts, all-to-all by NCCL; gradient reduction, parameter gathering and "
    "all-to-all are not overlapped, tensor-parallel transfers neither, context-parallel rings are hidden behind attention; "
    "FP8 rows: all GEMMs in fp8, everything else as bf16 rows"
)
HELD_OUT: Final = (
    "no number was fitted. Chosen with the rows of megatron_b200_dev in view: which terms the memory of the vocabulary "
    "and of the experts' outputs has; and, because every step came out too short, that time has these terms: the clock "
    "under sustained load, rotary, permutation and loss kernels, the second gather of tensor parallelism, norm and "
    "zeroing of gradients. Their values are from other sources"
)
GIB: Final = 1 << 30
POINTS: Final = {True: 2, False: 1}  # of a row of Megatron: time and memory; of a recipe: throughput


@dataclass(frozen=True)
class Steps(Validation):
    """Points of time, memory and throughput; each has its own error."""

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints, with an error of each quantity."""
        document = super().to_json()
        for what, statistic in (("time", "mean"), ("memory", "mean"), ("throughput", "median")):
            some = [point for point in self.points if point.keys["what"] == what]
            if some:
                # of a throughput itself, as published, not of the time behind it
                wrong = [point.predicted / point.measured - 1.0 for point in some]
                value = errors(wrong)[f"{statistic}_abs_error"]
                document["metrics"][f"{what}_{statistic}_abs_error"] = {"value": value, "unit": "1"}
                document["metrics"][f"{what}_max_abs_error"] = {"value": errors(wrong)["max_abs_error"], "unit": "1"}
            if what == "throughput" and len(some) > 2:
                document["metrics"]["throughput_spearman"] = {"value": spearman(some), "unit": "1"}
        return document


def validate(data: Path | None = None) -> Validation:
    """Every row of the shipped tables, or of a file in either's columns. Raises BadInput where none is answered."""
    paths = [data] if data else [shipped.shipped("workloads", "validation", name) for name in FILES]
    points: list[Point] = []
    refused: list[str] = []
    asked = 0
    for path in paths:
        for line, row in read_rows(path, MEGATRON, BRIDGE):
            asked += POINTS[_is_megatron(row)]
            try:
                points += _points(row)
            except (BadInput, DoesNotFit) as error:
                refused.append(f"{path.name}:{line}: {error}")
    if not points:
        raise nothing_understood(paths[0], refused)
    models = {point.keys["model"]: _model(point.keys["model"]).name for point in points}
    facts = {
        "data": [path.name for path in paths], "recipe": RECIPE, "held_out": HELD_OUT,
        "clock": _clock(points), "models": ", ".join(f"{words}: {name}" for words, name in sorted(models.items())),
    }  # fmt: skip
    return Steps("training", tuple(points), ("what", "of"), facts, tuple(refused), asked=asked)


def _clock(points: list[Point]) -> str:
    """What sustained load takes of each system's clock."""
    systems = sorted({point.keys["system"] for point in points})
    notes = {system: _costs(system, 1, "bf16").clock_note or "as measured in short runs" for system in systems}
    return "; ".join(f"{system}: {note}" for system, note in notes.items())


def _is_megatron(row: Row) -> bool:
    return "real_ms" in row


def _points(row: Row) -> list[Point]:
    """Raises BadInput with what is not understood."""
    return _of_megatron(row) if _is_megatron(row) else _of_bridge(row)


@lru_cache(maxsize=64)
def _model(words: str) -> MoEModel:
    return find_model(words)


def _of_megatron(row: Row) -> list[Point]:
    one_dense = "1 dense layer" in row.get("note", "")
    model = first_layers(_model(row["model"]), whole(row, "layers"), one_dense=one_dense)
    system = row.get("system") or "b200"
    job = _job(row, system, model, whole(row, "micro_batches"))
    step, memory = train_step(job), max(rank_memory(job, rank).used(HBM) for rank in range(job.pipeline))
    keys = {"of": row["model"], "model": row["model"], "case": row.get("case", ""), "system": system}
    return [
        Point({"what": "time", **keys}, "ms", number(row, "real_ms"), step.seconds * 1e3),
        Point({"what": "memory", **keys}, "GiB", number(row, "real_alloc_gib"), memory / GIB),
    ]


def _of_bridge(row: Row) -> list[Point]:
    model = _model(row["model"])
    slices = whole(row, "tp") * whole(row, "pp") * whole(row, "cp")
    replicas, rest = divmod(whole(row, "gpus"), slices)
    each = whole(row, "mbs") * replicas
    if rest or not replicas or whole(row, "gbs") % each:
        raise BadInput(f"gbs {row['gbs']} is no multiple of mbs x data-parallel size, {each}")
    system = row["system"].lower().removeprefix("dgx-")
    job = _job(row, system, model, whole(row, "gbs") // each)
    seconds = train_step(job).seconds
    keys = {"what": "throughput", "of": row["system"], "model": row["model"], "container": row.get("container", ""),
            "precision": row["precision"]}  # fmt: skip
    return [Point(keys, "tok/s", number(row, "tokens_per_s_per_gpu"), job.tokens / seconds / job.world, rate=True)]


def _job(row: Row, system: str, model: MoEModel, micro_batches: int) -> Job:
    tensor, expert, world = (whole(row, name) for name in ("tp", "ep", "gpus"))
    cluster = _cluster(system, world)
    precision = "fp8" if "fp8" in row["precision"].lower() else row["precision"].lower()
    chunks = int(row["vp"]) if row.get("vp", "").isdigit() else 1
    job = Job(
        model=model, cluster=cluster, costs=_costs(system, world, precision), world=world,
        micro_batches=micro_batches, sequence=whole(row, "seq"), sequences=whole(row, "mbs"),
        tensor=tensor, context=whole(row, "cp"), pipeline=whole(row, "pp"), expert=expert,
        expert_tensor=1 if model.routed and expert % tensor == 0 else default_expert_tensor_parallel(tensor, expert),
        order="interleaved" if chunks > 1 else "1f1b", chunks=chunks, precision=precision,
    )  # fmt: skip
    if row.get("dp") and whole(row, "dp") != job.data:
        raise BadInput(f"dp {row['dp']}, but {world} GPUs over tp x cp x pp are {job.data}")
    return job


@lru_cache(maxsize=8)
def _cluster(system: str, world: int) -> Cluster:
    if system not in TOPOLOGIES:
        raise BadInput(f"system {system!r} is not known", way_out=f"one of {', '.join(TOPOLOGIES)}")
    one = load_cluster(TOPOLOGIES[system], nodes=1)
    return load_cluster(TOPOLOGIES[system], nodes=-(-world // one.gpus_per_node))


@lru_cache(maxsize=8)
def _costs(system: str, world: int, precision: str) -> Tables:
    return Tables(load_costs("auto", _cluster(system, world).devices[0], precision=precision).sustained())
