"""`moesim validate training`: published training steps, by time, by peak memory and by throughput.

Two kinds of tables, told apart by their columns: steps of Megatron-LM with milliseconds and peak memory (real_ms,
real_alloc_gib), and throughput of a framework's recipes (tokens_per_s_per_gpu). Nothing is fitted to either; what a row
does not say of its recipe is assumed, and stated in the provenance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from moesim.studies.validation.systems import topology_of
from moesim.studies.validation.training_models import find_model, first_layers
from moesim.studies.validation.training_recipes import CONFIGURATION, Recipe, configuration, recipe_of, version_of
from moesim.studies.validation.validation import Point, Validation, errors
from moesim.training import Job, rank_memory, train_step

FILES: Final = ("megatron_b200_dev.csv", "megatron_bridge_dev.csv")
MEGATRON: Final = ("model", "layers", "gpus", "tp", "cp", "pp", "ep", "micro_batches", "mbs", "seq", "precision",
                   "real_ms", "real_alloc_gib")  # fmt: skip
BRIDGE: Final = ("system", "model", "gpus", "precision", "gbs", "mbs", "seq", "tp", "pp", "cp", "vp", "ep",
                 "tokens_per_s_per_gpu")  # fmt: skip
RECIPE: Final = (
    "bf16 parameters, fp32 gradients added up in place and reduced in fp32, master copies and Adam's moments sharded "
    "over equal ranks, nothing recomputed, flash attention, sequence parallelism with TP, 1F1B (interleaved where a "
    "virtual size is given), even rows of experts, all-to-all by NCCL; gradient reduction, parameter gathering and "
    "all-to-all are not overlapped, tensor-parallel transfers neither, context-parallel rings are hidden behind "
    "attention; FP8 rows: all GEMMs in fp8, everything else as bf16 rows; rows with fsdp: parameters, gradients and "
    "states sharded (ZeRO-3), layers gathered and reduced beside compute. Throughput rows, by container: tokens by "
    "DeepEP (flex dispatcher), NCCL for Qwen3 on B200 before 26.02.01; Qwen3 in FP8-MX on Blackwell from 26.06 on with "
    "hidden all-to-alls and FP8 attention (NVIDIA-NeMo/Megatron-Bridge pull requests 2499 and 4606); B300 and GB300 "
    "run the kernels of B200 and GB200 at their own rates"
)
HELD_OUT: Final = (
    "no number was fitted. Chosen with the rows of megatron_b200_dev in view: which terms the memory of the vocabulary "
    "and of the experts' outputs has; and, because every step came out too short, that time has these terms: the clock "
    "under sustained load, rotary, permutation and loss kernels, the second gather of tensor parallelism, norm and "
    "zeroing of gradients. Their values are from other sources. Chosen with the rows of megatron_bridge_dev in view: "
    "their recipes, i.e. which containers have which dispatcher, hidden all-to-alls and FP8 attention by the public "
    "changes named above, and that DeepEP needs no copies in order of destinations"
)
GIB: Final = 1 << 30
MOST: Final = float(1 << 22)  # tokens, sequences, ranks: beyond it a cell is no number of any
MEGATRON_RECIPE: Final = Recipe("nccl", "bf16", False)
FSDP: Final[dict[str, Any]] = {"zero": 3, "reduce_beside": True, "gather_beside": True}
WHAT: Final = ("time", "memory", "throughput")
POINTS: Final = {True: 2, False: 1}  # of a row of Megatron: time and memory; of a recipe: throughput


@dataclass(frozen=True)
class Steps(Validation):
    """Points of time, memory and throughput; each has its own error."""

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints, with an error of each quantity."""
        document = super().to_json()
        found = dict(self._figures())
        document["metrics"] |= {name: {"value": value, "unit": "1"} for name, value in found.items()}
        return document

    def _figures(self) -> Iterator[tuple[str, float]]:
        of = {what: [point for point in self.points if point.keys["what"] == what] for what in WHAT}
        for what in ("time", "memory"):
            if of[what]:
                wrong = errors(point.error for point in of[what])
                yield f"{what}_mean_abs_error", wrong["mean_abs_error"]
                yield f"{what}_max_abs_error", wrong["max_abs_error"]
        if rows := of["throughput"]:
            # of a throughput itself, as published, not of the time behind it
            newest, every = (errors(p.predicted / p.measured - 1.0 for p in some) for some in (_newest(rows), rows))
            yield "throughput_median_abs_error", newest["median_abs_error"]
            yield "throughput_max_abs_error", newest["max_abs_error"]
            yield "throughput_median_abs_error_of_all_containers", every["median_abs_error"]
            yield "throughput_spearman", spearman(rows)


def _newest(points: Sequence[Point]) -> list[Point]:
    """Of each configuration the point of the newest container."""
    last: dict[str, Point] = {}
    for point in points:
        known = last.setdefault(point.keys["configuration"], point)
        if version_of(point.keys["container"]) > version_of(known.keys["container"]):
            last[point.keys["configuration"]] = point
    return list(last.values())


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


def _whole(row: Row, column: str) -> int:
    """Raises BadInput."""
    return whole(row, column, MOST)


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
    model = first_layers(_model(row["model"]), _whole(row, "layers"), one_dense=one_dense)
    system = row.get("system") or "b200"
    job = _job(row, system, model, _whole(row, "micro_batches"))
    step, memory = train_step(job), max(rank_memory(job, rank).used(HBM) for rank in range(job.pipeline))
    keys = {"of": row["model"], "model": row["model"], "case": row.get("case", ""), "system": system}
    return [
        Point({"what": "time", **keys}, "ms", number(row, "real_ms"), step.seconds * 1e3),
        Point({"what": "memory", **keys}, "GiB", number(row, "real_alloc_gib"), memory / GIB),
    ]


def _of_bridge(row: Row) -> list[Point]:
    recipe = recipe_of(row)
    rate = _rate(tuple((name, row.get(name, "")) for name in CONFIGURATION), recipe)
    container = row.get("container", "")
    case = f"{container} {row['precision']} mbs {row['mbs']} pp {row['pp']} ep {row['ep']}: {recipe.words}"
    keys = {"what": "throughput", "of": row["system"], "model": row["model"], "container": container, "case": case,
            "system": _system(row), "configuration": configuration(row)}  # fmt: skip
    return [Point(keys, "tok/s", number(row, "tokens_per_s_per_gpu"), rate, rate=True)]


def _system(row: Row) -> str:
    return row["system"].lower().removeprefix("dgx-")


@lru_cache(maxsize=256)
def _rate(of: tuple[tuple[str, str], ...], recipe: Recipe) -> float:
    """Tokens a second on each GPU of a configuration, whatever the container. Raises BadInput."""
    row = dict(of)
    model = _model(row["model"])
    slices = _whole(row, "tp") * _whole(row, "pp") * _whole(row, "cp")
    replicas, rest = divmod(_whole(row, "gpus"), slices)
    each = _whole(row, "mbs") * replicas
    if rest or not replicas or _whole(row, "gbs") % each:
        raise BadInput(f"gbs {row['gbs']} is no multiple of mbs x data-parallel size, {each}")
    job = _job(row, _system(row), model, _whole(row, "gbs") // each, recipe)
    return job.tokens / train_step(job).seconds / job.world


def _job(row: Row, system: str, model: MoEModel, micro_batches: int, recipe: Recipe = MEGATRON_RECIPE) -> Job:
    tensor, expert, world = (_whole(row, name) for name in ("tp", "ep", "gpus"))
    cluster = _cluster(system, world)
    precision = "fp8" if "fp8" in row["precision"].lower() else row["precision"].lower()
    chunks = int(row["vp"]) if row.get("vp", "").isdecimal() else 1
    job = Job(
        model=model, cluster=cluster, costs=_costs(system, world, precision), world=world,
        micro_batches=micro_batches, sequence=_whole(row, "seq"), sequences=_whole(row, "mbs"),
        tensor=tensor, context=_whole(row, "cp"), pipeline=_whole(row, "pp"), expert=expert,
        expert_tensor=1 if model.routed and expert % tensor == 0 else default_expert_tensor_parallel(tensor, expert),
        order="interleaved" if chunks > 1 else "1f1b", chunks=chunks, precision=precision,
        **recipe._asdict(), **_fsdp(row),
    )  # fmt: skip
    if row.get("dp") and _whole(row, "dp") != job.data:
        raise BadInput(f"dp {row['dp']}, but {world} GPUs over tp x cp x pp are {job.data}")
    return job


def _fsdp(row: Row) -> dict[str, Any]:
    """Raises BadInput."""
    said = row.get("fsdp", "")
    if said not in ("", "0", "1"):
        raise BadInput(f"fsdp {said!r}", way_out="0 or 1")
    return FSDP if said == "1" else {}


@lru_cache(maxsize=8)
def _cluster(system: str, world: int) -> Cluster:
    topology = topology_of(system)
    return load_cluster(topology, nodes=-(-world // load_cluster(topology, nodes=1).gpus_per_node))


@lru_cache(maxsize=8)
def _costs(system: str, world: int, precision: str) -> Tables:
    return Tables(load_costs("auto", _cluster(system, world).devices[0], precision=precision).sustained())
