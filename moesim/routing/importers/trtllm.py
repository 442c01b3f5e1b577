"""TensorRT-LLM's ExpertStatistic: a folder of meta_info.json and rank{r}.safetensors, tensors "{iter}_{layer}" [E].

Each rank counts its own tokens, so this gives a matrix of source rank by expert for every iteration.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from moesim import atomic, foreign
from moesim.errors import BadInput
from moesim.routing.arrays import read_safetensors, write_safetensors
from moesim.routing.importers.format import Format, Options, counts_of, header_for
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import NO_EXPERT
from moesim.routing.trace import RoutingTrace

MAX_CELLS = 1 << 28  # counts of all iterations, ranks, layers and experts


def read(path: Path, options: Options) -> LoadRecord:
    """Raises BadInput naming the file and the tensor."""
    meta = _meta(path)
    ranks = {
        int(m[1]): f for f in path.glob("rank*.safetensors") if (m := re.fullmatch(r"rank(\d+)\.safetensors", f.name))
    }
    if sorted(ranks) != list(range(len(ranks))) or not ranks:
        raise BadInput(f"holds rank files {sorted(ranks)}", where=path, way_out="rank0.safetensors to the last, no gap")
    tensors = [read_safetensors(ranks[rank]) for rank in sorted(ranks)]
    keys = sorted(_key(name, path) for name in tensors[0])
    steps, layers = sorted({step for step, _ in keys}), sorted({layer for _, layer in keys})
    experts = meta["num_experts"]
    if not keys:
        raise BadInput("holds no tensor", where=ranks[0])
    foreign.check_cells((len(steps), len(ranks), len(layers), experts), MAX_CELLS, path)
    if any(tensor.shape != (experts,) for found in tensors for tensor in found.values()):
        raise BadInput(f"tensors are not all [{experts}], as meta_info.json has it", where=path)
    table = np.zeros((len(steps), len(ranks), len(layers), experts), dtype=np.int64)
    for rank, found in enumerate(tensors):
        if sorted(_key(name, path) for name in found) != keys or len(keys) != len(steps) * len(layers):
            raise BadInput("iterations or layers are missing", where=ranks[rank])
        for name, values in found.items():
            step, layer = _key(name, path)
            if values.shape != (experts,) or values.dtype.kind not in "iu":
                raise BadInput(f"{name} is {values.dtype} {values.shape}, not [{experts}]", where=ranks[rank])
            table[steps.index(step), rank, layers.index(layer)] = values
    top_k = meta["num_experts_per_token"]
    header = header_for("trtllm", options, path, tuple(layers), max(layers) + 1, experts, top_k)
    return LoadRecord(header, table.sum(axis=1), tuple(layers), max(layers) + 1, table)


def _meta(path: Path) -> dict[str, int]:
    try:
        meta = json.loads(foreign.read_bytes(path / "meta_info.json", 1 << 20))
        sizes = {name: meta[name] for name in ("num_experts", "num_experts_per_token")}
        if any(type(size) is not int or not 1 <= size < NO_EXPERT for size in sizes.values()):
            raise ValueError(f"sizes {sizes}")
        return sizes
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"no usable meta_info.json ({error})", where=path) from None


def _key(name: str, path: Path) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)_(\d+)", name)
    if match is None:
        raise BadInput(f"tensor {name!r} is not named iteration_layer", where=path)
    return int(match[1]), int(match[2])


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """One file a source rank; counts without sources become one rank."""
    loads = counts_of(record, path)
    table = loads.by_source if loads.by_source is not None else loads.counts[:, None]
    sizes = {"num_experts": loads.header.num_experts, "num_experts_per_token": loads.header.top_k}
    with atomic.folder(path) as part:
        (part / "meta_info.json").write_text(json.dumps(sizes))
        for rank in range(table.shape[1]):
            tensors = {
                f"{step}_{layer}": table[step, rank, number].astype(np.int32)
                for step in range(len(table))
                for number, layer in enumerate(loads.layer_ids)
            }
            write_safetensors(part / f"rank{rank}.safetensors", tensors)


TRTLLM = Format("trtllm", "folder of meta_info.json and rank{r}.safetensors", False, read, write)
