"""The space of a search: every candidate is keys of a scenario. What the cluster's size rules out is left out here;
what a model, an algorithm or the memory rules out, the scenario's own checks say.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.models import load_model
from moesim.studies.sweeping.axes import Axis, Interval
from moesim.studies.training.flags import BATCH, named, read_parallel

MOST: Final = 20_000  # candidates: a file of their keys is 5 MB
APART: Final = ("allgather_reducescatter", "deepep_low_latency", "deepep_normal")  # of tokens that ranks have apart
TOGETHER: Final = ("replicated",)  # of those that all ranks of a replica have: its one tensor group
LIMITS: Final = {"scheduler.max_num_batched_tokens": (2048, 8192), "scheduler.max_num_seqs": (64, 256)}
Keys = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """Keys that make the base one deployment (dotted key -> value), and the GPUs that it takes."""

    keys: Keys
    gpus: int

    @property
    def label(self) -> str:
        """ "2 x TP 4 DP 2 EP 8" and what else was chosen."""
        rest = [f"{key.rpartition('.')[2]} {value}" for key, value in self.keys.items() if key not in PLACES]
        return ", ".join([_stands(self.keys), *rest])


KEPT: Final = ("zero_stage", "context_parallel_size", "data_parallel_shard_size")  # of training: not searched
PLACES: Final = ("parallel", "replicas", "pools", "pipeline", "batch.micro_batches")


def serving_space(
    base: yamlfile.Document, gpus: int, node: int, axes: Sequence[Axis], *, pools: bool
) -> list[Candidate]:
    """Replicas of every layout that fits `gpus` in nodes of `node`, batch limits, all-to-alls, and the user's axes.
    pools: pairs of pools too. Raises BadInput for a space that is too large.
    """
    layouts = list(_layouts(gpus, node, dense=not _experts(base)))
    limits = _limits(base, axes)
    alone = [
        Candidate({"parallel": layout, "replicas": n, **rest}, n * _world(layout))
        for layout in layouts
        for n in _copies(gpus // _world(layout))
        for rest in _rest(base, layout, limits)
    ]
    paired = list(_pairs(base, layouts, gpus, limits)) if pools else []
    if len(alone) + len(paired) > MOST:
        raise BadInput(f"{len(alone) + len(paired):,} candidates, {MOST:,} at most", where="recommend",
                       way_out="fewer values of --set, or fewer GPUs")  # fmt: skip
    return [*alone, *paired]


def training_space(base: yamlfile.Document, gpus: int, axes: Sequence[Axis], layers: int) -> list[Candidate]:
    """Megatron's degrees on all GPUs, each with the orders that its stages allow; tokens of a step, context parallel
    and what ZeRO keeps in parts stay as they are. Raises BadInput for a space that is too large, or empty.
    """
    batch, asked = named(base.data.get("batch", {}), BATCH, "batch"), read_parallel(base.data.get("parallel", {}))
    per_micro, kept = batch.get("micro_batch_size", 1), {key: asked[key] for key in KEPT if key in asked}
    sequences = batch.get("global_batch_size")
    if asked.get("stage_layers"):
        raise BadInput("is for one number of stages, and others are searched", where="parallel.stage_layers",
                       way_out="leave it out")  # fmt: skip
    counted, context = sequences is None, kept.get("context_parallel_size", 1)
    sequences = sequences or batch.get("micro_batches", 1) * per_micro * asked.get("data_parallel_size", 1)
    found = []
    for tensor, pipeline in itertools.product(_divisors(min(gpus, 8)), _divisors(gpus)):
        if gpus % (tensor * context * pipeline) or pipeline > layers:
            continue
        data = gpus // (tensor * context * pipeline)
        if sequences % (data * per_micro) or data % kept.get("data_parallel_shard_size", 1):
            continue
        over = [ways for ways in _divisors(tensor * context * data) if ways % tensor == 0] if _experts(base) else [0]
        for expert, order in itertools.product(over, _orders(pipeline, layers)):
            parallel = {"tensor_parallel_size": tensor, "data_parallel_size": data, "pipeline_parallel_size": pipeline,
                        **kept}  # fmt: skip
            parallel |= {"expert_parallel_size": expert, "expert_tensor_parallel_size": 1} if expert else {}
            parallel |= {"virtual_pipeline_size": order[1]} if order[1] > 1 else {}
            keys = {"parallel": parallel, "pipeline": {**base.data.get("pipeline", {}), "schedule": order[0]}}
            keys |= {"batch.micro_batches": sequences // (data * per_micro)} if counted else {}
            found += [Candidate({**keys, **rest}, gpus) for rest in _crossed(axes)]
    if not found:
        what = f"no layout of {gpus} GPUs divides the step's {sequences} sequences"
        raise BadInput(what, where="batch.micro_batches", way_out="more micro-batches, or other --gpus")
    if len(found) > MOST:
        raise BadInput(f"{len(found):,} candidates, {MOST:,} at most", where="recommend", way_out="fewer --set values")
    return found


def holding(space: Sequence[Candidate], held: Sequence[Axis]) -> list[Candidate]:
    """Candidates whose searched keys have one of the values that the user holds them to; a key of which no candidate
    says anything stays as the scenario has it. Raises BadInput for a value that none of those left has.
    """
    left = list(space)
    for axis in held:
        values, where = [one[axis.key] for one in _crossed([axis])], f"--set {axis.key}"
        there = {_said(one.keys, axis.key) for one in left} - {None}
        if len(values) > 1 and (not there or axis.key.rpartition(".")[2] in (*KEPT, "hide_alltoall")):
            one = str(values[0]).lower() if isinstance(values[0], bool) else values[0]
            raise BadInput("is not searched, and takes one value", where=where, way_out=f"{axis.key}={one}")
        if there and (lacking := [value for value in values if value not in there]):
            raise BadInput(f"no deployment has {' or '.join(map(str, lacking))}", where=where,
                           way_out=", ".join(map(str, sorted(there))))  # fmt: skip
        left = [one for one in left if _said(one.keys, axis.key) in values] if there else left
    return left


def _said(keys: Keys, key: str) -> Any:
    """What a candidate says of a dotted key, None where nothing; a degree that it leaves out is 1."""
    found: Any = keys
    *above, name = key.split(".")
    for part in above:
        found = found.get(part, {})
    return found.get(name, 1 if above[-1:] == ["parallel"] and found else None)


def _orders(pipeline: int, layers: int) -> Iterator[tuple[str, int]]:
    """Pipeline orders of so many stages, and virtual stages on each rank."""
    yield "1f1b", 1
    if pipeline > 1:
        yield "zb-h1", 1
        yield from (("interleaved", chunks) for chunks in (2, 4) if layers % (pipeline * chunks) == 0)


def _layouts(gpus: int, node: int, *, dense: bool) -> Iterator[dict[str, int]]:
    """Of one replica. Tensor groups stay inside a node. Attention data parallel goes with experts spread over all
    ranks, whole or by width: with a copy of the experts in each group it would be replicas that wait for each other.
    """
    for world in (w for w in _powers(gpus) if w <= node or w % node == 0):
        for tensor in (t for t in _powers(min(world, node)) if world % t == 0):
            data = world // tensor
            sizes = {"tensor_parallel_size": tensor, "data_parallel_size": data}
            if data == 1:
                yield {**sizes, "expert_parallel_size": 1}
            if world > 1 and not dense:
                yield {**sizes, "expert_parallel_size": world}


def _pairs(base: yamlfile.Document, layouts: Sequence[Keys], gpus: int, limits: Sequence[Keys]) -> Iterator[Candidate]:
    """A pool that computes prompts beside one that answers: all ratios that fill the GPUs."""
    for first, second in itertools.product(layouts, layouts):
        for n in range(1, gpus // _world(first) + 1):
            left = (gpus - n * _world(first)) // _world(second)
            if not left or n * _world(first) + left * _world(second) < gpus:
                continue
            sides = (_dispatches(base, first), _dispatches(base, second))
            for (one, other), rest in itertools.product(itertools.product(*sides), limits):
                pools = {"prefill": {"replicas": n, "parallel": first, **_comm(base, one)},
                         "decode": {"replicas": left, "parallel": second, **_comm(base, other)}}  # fmt: skip
                yield Candidate({"pools": pools, **rest}, gpus)


def _comm(base: yamlfile.Document, dispatch: str | None) -> dict[str, Any]:
    """A pool's section stands for the whole of the scenario's."""
    return {"comm": {**base.data.get("comm", {}), "dispatch": dispatch}} if dispatch else {}


def _rest(base: yamlfile.Document, layout: Keys, limits: Sequence[Keys]) -> Iterator[dict[str, Any]]:
    for dispatch, rest in itertools.product(_dispatches(base, layout), limits):
        yield {**({"comm.dispatch": dispatch} if dispatch else {}), **rest}


def _dispatches(base: yamlfile.Document, layout: Keys) -> Sequence[str | None]:
    """All-to-alls to try: none where the scenario says which, or where there is none."""
    said = "dispatch" in base.data.get("comm", {})
    if said or layout["expert_parallel_size"] == 1:
        return (None,)
    return APART if layout["data_parallel_size"] > 1 else TOGETHER


def _limits(base: yamlfile.Document, axes: Sequence[Axis]) -> list[Keys]:
    """Every mix of the batch limits that neither the scenario nor the user settles, and of the user's axes."""
    said = {f"scheduler.{key}" for key in base.data.get("scheduler", {})} | {axis.key for axis in axes}
    own = [Axis(key, values) for key, values in LIMITS.items() if key not in said]
    return list(_crossed([*own, *axes]))


def _crossed(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Raises BadInput for an interval."""
    lists = []
    for axis in axes:
        if isinstance(axis.values, Interval):
            raise BadInput("a search needs values", where=f"--set {axis.key}", way_out="a list: key=1,2,4")
        lists.append(axis.values)
    size = math.prod(map(len, lists))
    if size > MOST:
        raise BadInput(f"{size:,} values to combine, {MOST:,} at most", where="--set", way_out="fewer values")
    for values in itertools.product(*lists):
        yield dict(zip((axis.key for axis in axes), values, strict=True))


def _experts(base: yamlfile.Document) -> bool:
    return bool(load_model(base.data["model"]).moe_layers)


def _world(layout: Keys) -> int:
    return int(layout["tensor_parallel_size"] * layout["data_parallel_size"])


def _copies(most: int) -> list[int]:
    """Replicas to try: powers of two, and as many as there is room for."""
    return sorted({*_powers(most), most})


def _powers(most: int) -> list[int]:
    return [1 << k for k in range(most.bit_length())]


def _divisors(number: int) -> list[int]:
    return [degree for degree in range(1, number + 1) if number % degree == 0]


def _stands(keys: Keys) -> str:
    if "pools" in keys:
        return " + ".join(f"{role} {_copies_of(pool['replicas'], pool)}" for role, pool in keys["pools"].items())
    order = keys.get("pipeline", {}).get("schedule")
    return _copies_of(keys.get("replicas", 1), keys) + (f", {order}" if order else "")


def _copies_of(number: int, keys: Keys) -> str:
    names = {"tensor_parallel_size": "TP", "data_parallel_size": "DP", "expert_parallel_size": "EP",
             "context_parallel_size": "CP", "pipeline_parallel_size": "PP", "virtual_pipeline_size": "VP"}  # fmt: skip
    sizes = " ".join(f"{short} {keys['parallel'][key]}" for key, short in names.items()
                     if keys["parallel"].get(key, 1) > 1) or "1 GPU"  # fmt: skip
    comm = keys.get("comm", {}).get("dispatch")
    return (f"{number} x " if number > 1 else "") + sizes + (f" {comm}" if comm else "")
