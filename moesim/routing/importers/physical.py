"""Counts of physical experts (slots, with replicas) -> counts of logical ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.importers.format import Options, header_for, whole
from moesim.routing.loads import LoadRecord


def logical_counts(physical: npt.NDArray[Any], to_logical: npt.NDArray[Any], where: Path) -> npt.NDArray[np.int64]:
    """physical [S, L, P], to_logical [L, P] -> int64[S, L, E]. Raises BadInput naming the layer."""
    if physical.ndim != 3 or physical.shape[1:] != to_logical.shape:
        raise BadInput(f"counts {physical.shape} and map {to_logical.shape} do not fit", where=where)
    physical, to_logical = whole(physical, "counts", where), whole(to_logical, "the map's experts", where)
    if to_logical.max() >= to_logical.shape[1]:
        raise BadInput(f"the map names expert {to_logical.max()}, there are {to_logical.shape[1]} slots", where=where)
    if to_logical.min() < 0:
        layer, slot = np.argwhere(to_logical < 0)[0]
        raise BadInput(f"layer {layer}: slot {slot} has no expert", where=where)
    experts = int(to_logical.max()) + 1
    logical = np.zeros((*physical.shape[:2], experts), dtype=np.int64)
    for layer, row in enumerate(to_logical.astype(np.int64)):
        np.add.at(logical[:, layer].T, row, physical[:, layer].T.astype(np.int64))
    return logical


def load_record(name: str, path: Path, options: Options, counts: npt.NDArray[np.int64]) -> LoadRecord:
    """counts [S, all layers, E] -> LoadRecord of the layers that counted anything; k from the model, or 1."""
    layers = tuple(int(layer) for layer in np.flatnonzero(counts.sum(axis=(0, 2)))) or tuple(range(counts.shape[1]))
    if options.model is not None and len(options.model.moe_layers) == counts.shape[1]:
        layers = tuple(range(counts.shape[1]))
    top_k = options.model.top_k if options.model else options.top_k or 1
    header = header_for(name, options, path, layers, counts.shape[1], counts.shape[2], top_k)
    if header.num_experts != counts.shape[2]:
        raise BadInput(f"{counts.shape[2]} experts, {header.model} has {header.num_experts}", where=path)
    return LoadRecord(header, counts[:, list(layers)], layers, counts.shape[1])


def dense_counts(record: LoadRecord) -> npt.NDArray[np.int64]:
    """int64[S, all layers, E]: the inverse, dense layers as zeros."""
    steps, _, experts = record.counts.shape
    wide = np.zeros((steps, record.total_layers, experts), dtype=np.int64)
    wide[:, list(record.layer_ids)] = record.counts
    return wide


def trivial_map(record: LoadRecord) -> npt.NDArray[np.int64]:
    """int64[all layers, E]: slot e holds expert e."""
    return np.tile(np.arange(record.header.num_experts), (record.total_layers, 1))
