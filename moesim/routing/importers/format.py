"""Format: how one engine writes routing, read and written; and what the user has to say about the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import RoutingShape
from moesim.routing.trace import RoutingTrace, TraceHeader

Ids = npt.NDArray[np.int64]
LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class Options:
    """What a file does not say itself. `model` gives name, experts and MoE layers; without it they are read off."""

    model: RoutingShape | None = None
    top_k: int | None = None
    rule: str = "softmax"


@dataclass(frozen=True)
class Format:
    """`read(path, options)` and its inverse `write(record, path)`; `tokens`: whether it holds tokens or counts only."""

    name: str
    what: str
    tokens: bool
    read: Callable[[Path, Options], RoutingTrace | LoadRecord]
    write: Callable[[RoutingTrace | LoadRecord, Path], None]


def whole(values: npt.NDArray[Any], what: str, where: Path | str) -> Ids:
    """int64 of the same shape. Raises BadInput for numbers that are not whole, or beyond 32 bits."""
    if values.dtype.kind not in "iu":
        raise BadInput(f"{what} are {values.dtype}, not whole numbers", where=where)
    if values.size and not (int(values.min()) >= -LARGEST and int(values.max()) <= LARGEST):
        raise BadInput(f"{what} reach {int(values.max())}", where=where, way_out=f"at most {LARGEST}")
    return values.astype(np.int64)


def header_for(
    name: str, options: Options, path: Path, layer_ids: tuple[int, ...], total: int, experts: int, top_k: int
) -> TraceHeader:
    """The header of an imported file; the model's sizes, or those read off where no model was named.

    `layer_ids` are the model layers with experts and `total` counts dense ones too. Raises BadInput where the file
    contradicts the model.
    """
    model = options.model
    if model is not None and (len(layer_ids), top_k) != (len(model.moe_layers), model.top_k):
        found = f"{len(layer_ids)} layers with top-{top_k}"
        raise BadInput(f"holds {found}, {model.name} has {len(model.moe_layers)} with top-{model.top_k}", where=path)
    return TraceHeader(
        model=model.name if model else "unknown",
        moe_layers=len(layer_ids),
        num_experts=model.num_experts if model else max(experts, top_k),
        top_k=top_k,
        origin=f"imported from {name}: {path.name}" + ("" if model else " (number of experts read off the ids)"),
        evidence={"layer_ids": list(layer_ids), "total_layers": total},
    )


def used_layers(ids: Ids, options: Options) -> tuple[int, ...]:
    """ids [T, layers, k] of all layers -> those with experts: the model's, or all but the ones full of zeros."""
    if options.model is not None and len(options.model.moe_layers) != ids.shape[1]:
        return tuple(n for n in options.model.moe_layers if n < ids.shape[1])
    busy = [layer for layer in range(ids.shape[1]) if ids[:, layer].any()]
    return tuple(busy) or tuple(range(ids.shape[1]))


def all_layers(trace: RoutingTrace) -> npt.NDArray[np.uint16]:
    """uint16[T, total layers, k]: the experts of a trace with dense layers as zeros, the inverse of `used_layers`."""
    layer_ids, total = layer_map(trace.header)
    wide = np.zeros((trace.tokens, total, trace.header.top_k), dtype=np.uint16)
    wide[:, list(layer_ids)] = trace.expert
    return wide


def layer_map(header: TraceHeader) -> tuple[tuple[int, ...], int]:
    """(model layers that have experts, all layers) as the header's evidence says; without it all are MoE layers."""
    layer_ids = tuple(header.evidence.get("layer_ids", range(header.moe_layers)))
    return layer_ids, int(header.evidence.get("total_layers", len(layer_ids)))


def tokens_of(record: RoutingTrace | LoadRecord, path: Path) -> RoutingTrace:
    """The record as tokens. Raises BadInput for counts."""
    if not isinstance(record, RoutingTrace):
        raise BadInput("counts cannot be written as tokens", where=path, way_out="a format that holds counts")
    return record


def counts_of(record: RoutingTrace | LoadRecord, path: Path) -> LoadRecord:
    """The record as counts. Raises BadInput for tokens."""
    if not isinstance(record, LoadRecord):
        raise BadInput("tokens were given where counts are written", where=path, way_out="loads_of(trace)")
    return record
